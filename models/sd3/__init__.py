"""TODO models/sd3."""
