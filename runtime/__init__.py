"""Paints pictures with an exported pipeline on the device: ONNX Runtime and numpy, without torch."""
