"""Exported graphs in every precision against those of ONNX Runtime's own quantizers: speed, memory, size, quality."""
