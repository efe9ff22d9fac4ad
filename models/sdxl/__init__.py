"""TODO models/sdxl."""
