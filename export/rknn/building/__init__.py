"""TODO export/rknn/building."""
