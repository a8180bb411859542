"""A language model behind an OpenAI-compatible address: reached, asked which response is better, and read."""
