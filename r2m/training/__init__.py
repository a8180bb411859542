"""The worker loop, checkpoints, the plan, Ray Train."""
