"""Exported graphs in every precision beside those that ONNX Runtime's own tools make: time, memory, bytes, pictures."""
