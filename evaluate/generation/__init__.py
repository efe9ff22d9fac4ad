"""TODO evaluate/generation."""
