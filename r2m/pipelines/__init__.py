"""Pipelines: steps of a file brought up to date, each paid for once, on a clock that is outside."""
