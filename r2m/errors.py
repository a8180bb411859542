"""The one exception that means "the input is wrong": shown to a user as one line, exit code 2, no trace."""


class UserError(ValueError):
    """Bad input. The message names the field, the value it had and what is allowed."""
