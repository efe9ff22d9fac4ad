"""TODO evaluate/images."""
