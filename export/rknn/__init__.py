"""RKNN: float ONNX made for Rockchip's NPUs, built by the vendor's toolkit, and believed as far as it simulates."""
