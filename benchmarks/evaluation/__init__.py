"""Benchmarks of evaluation: the speed of scoring, what the demo's CLIP can tell apart, and the images of the README."""
