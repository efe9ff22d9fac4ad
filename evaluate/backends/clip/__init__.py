"""CLIP models from weights on disk, loaded with open_clip or transformers.

`spec` parses the value of `--clip`, `open_clip_backend` and `transformers_backend` load the model,
`checkpoint_conversion` converts open_clip checkpoints for transformers, `preprocessing` prepares images for both, and
`embedder` computes embeddings.
"""
