"""CLIP from weights on disk, through open_clip or transformers: never random ones, and never without saying which.

`spec` reads what `--clip` says, `open` and `stock` load it with either library, `convert` renames one's weights to the
other's, and `embed` gives embeddings, each made once.
"""
