"""TODO models/flux."""
