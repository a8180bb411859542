"""The reward model: its input, its scores, and the policy's feedback to its head."""
