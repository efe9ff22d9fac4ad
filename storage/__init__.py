"""Artifacts on disk: their layout, the files that describe them, weights, and safe replacement of folders."""
