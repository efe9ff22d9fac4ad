"""Pipelines with random weights, to measure the cost of work on full-size models."""
