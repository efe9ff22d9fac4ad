"""TODO prompts."""
