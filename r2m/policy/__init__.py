"""The policy: its forward, its hidden states, sampling."""
