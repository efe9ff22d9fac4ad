"""TODO benchmarks/rknn."""
