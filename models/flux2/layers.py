"""The layers of the text encoder that FLUX.2 klein reads."""

READ_LAYERS = (9, 18, 27)  # numbers of layers after which the pipeline reads states, in the order of their channels
