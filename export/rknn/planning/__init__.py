"""TODO export/rknn/planning."""
