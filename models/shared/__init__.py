"""TODO models/shared."""
