"""TODO demo/training."""
