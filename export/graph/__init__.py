"""Graphs without weights: opened, traced and lowered for a target, with the weights written beside them."""
