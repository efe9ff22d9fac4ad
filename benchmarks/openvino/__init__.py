"""Exported graphs in OpenVINO: which open, what they keep in memory, parity and speed beside ONNX Runtime."""
