"""Training of the demo pipeline and of its CLIP."""
