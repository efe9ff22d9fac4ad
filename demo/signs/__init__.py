"""The demo's dataset: signs, their prompts, and their ground-truth images."""
