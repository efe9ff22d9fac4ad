"""Benchmarks of quantization: image quality, cost, the int4 kernel, and interoperability."""
