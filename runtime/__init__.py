"""Generates images from exported pipelines on a device, with ONNX Runtime and numpy; torch is not needed."""
