"""The kinds of steps, one module each or two that are alike: settings, what determines the result, how it is made."""
