"""TODO benchmarks/onnx."""
