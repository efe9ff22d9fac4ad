"""Sizes that tiny components share, so that those of any pipeline fit together.

All text encoders have the same width, and all denoisers read it; latents have four channels.
"""

SIDE = 64  # pixels of an image
WIDTH = 64  # of hidden states of text encoders and denoisers, and of CLIP's projection
HEADS, HEAD_WIDTH = 4, 16
ROPE_AXES = (4, 6, 6)  # of a head
VOCABULARY = 512
LATENTS = 4  # channels
PATCHED = 4 * LATENTS  # channels of a patch of 2 x 2
UNET_CLASSES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")  # of which convolutions are measured
