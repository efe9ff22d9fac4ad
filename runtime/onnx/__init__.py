"""Reads exported ONNX graphs and runs them with ONNX Runtime."""
