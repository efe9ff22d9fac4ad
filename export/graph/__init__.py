"""TODO export/graph."""
