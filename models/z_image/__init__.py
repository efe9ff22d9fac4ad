"""TODO models/z_image."""
