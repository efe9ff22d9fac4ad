"""TODO evaluate/backends."""
