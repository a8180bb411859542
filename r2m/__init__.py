"""R2M: reward models that see the policy's hidden states, and experiments that measure whether it helps."""

__version__ = "0.1.0"
