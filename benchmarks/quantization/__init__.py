"""TODO benchmarks/quantization."""
