"""The demo pipeline: a small genuine ZImagePipeline that paints signs, how it was trained, and its weights."""
