"""Exports pipelines to ONNX: plan, trace, write, verify, publish."""
