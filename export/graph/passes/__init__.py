"""Passes over traced graphs: fuse, decompose and rewrite operators."""
