"""TODO benchmarks/synthetic."""
