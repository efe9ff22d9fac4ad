"""Benchmarks of ONNX graphs: speed, memory, size, image quality, and the cost of exporting full-size components."""
