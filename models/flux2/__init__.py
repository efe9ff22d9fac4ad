"""FLUX.2: the names of its tensors in single files. edgepress exports no graphs of it."""
