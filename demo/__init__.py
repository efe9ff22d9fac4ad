"""The demo pipeline: a small genuine ZImagePipeline that draws signs, its dataset, its training, and its weights."""
