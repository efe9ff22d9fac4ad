"""Diffusers pipelines in torch: where they come from, how they are loaded and run, and how INT4 weights are loaded."""
