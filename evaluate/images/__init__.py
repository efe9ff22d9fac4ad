"""Images of an evaluation: their array type, image files, and the detection of defects."""
