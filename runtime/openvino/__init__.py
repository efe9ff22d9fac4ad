"""Runs exported ONNX graphs with OpenVINO instead of ONNX Runtime."""
