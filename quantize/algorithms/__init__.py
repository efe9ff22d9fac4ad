"""Quantization algorithms on plain tensors: weights (out, in) and H, the mean of x x^T over a linear's inputs."""
