"""Applies the metrics to images and pairs, and caches the results."""
