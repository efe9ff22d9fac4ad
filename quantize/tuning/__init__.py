"""Tuning after solving: what a quantized denoiser keeps in floats is trained to the reference's outputs."""
