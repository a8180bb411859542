"""Hugging Face folders: loading, saving, dimensions, fetching."""
