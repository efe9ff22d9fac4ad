"""Builds parts with rknn-toolkit2, simulates them, and accepts or rejects what was built."""
