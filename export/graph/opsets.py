"""The ONNX opsets that graphs can be exported in."""

from __future__ import annotations

SUPPORTED_OPSETS = range(18, 25)
DEQUANTIZE_LINEAR_MIN_OPSET = 21  # the first opset whose DequantizeLinear supports blocks and INT4
