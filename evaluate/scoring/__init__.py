"""TODO evaluate/scoring."""
