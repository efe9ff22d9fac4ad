"""Exports pipelines to the formats of device runtimes: ONNX and RKNN."""
