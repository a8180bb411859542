"""Prompts, preference pairs, and the gold reward where there is one."""
