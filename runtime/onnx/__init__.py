"""TODO runtime/onnx."""
