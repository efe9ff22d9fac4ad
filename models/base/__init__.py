"""TODO models/base."""
