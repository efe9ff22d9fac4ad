"""Generates the images of an evaluation with the reference and the candidates."""
