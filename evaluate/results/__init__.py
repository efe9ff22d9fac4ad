"""TODO evaluate/results."""
