"""TODO evaluate/stats."""
