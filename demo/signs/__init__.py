"""TODO demo/signs."""
