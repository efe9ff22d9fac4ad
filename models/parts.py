"""Graphs that several families have: the text encoders of CLIP and T5, and AutoencoderKL."""

from __future__ import annotations

from .graphs import Graph, Port

IDS = Port("ids", (None, None), "int64")  # of CLIP, whose prompts are all of one length

VAE_DECODER = Graph(
    "vae_decoder",
    "vae",
    "edgepress.models.vae_graphs:Decoder",
    (Port("latents", (None, None, "h", "w")),),
    (Port("image", (None, None, "8*h", "8*w")),),
)

# Of pictures whose sides are multiples of 8.
VAE_ENCODER = Graph(
    "vae_encoder",
    "vae",
    "edgepress.models.vae_graphs:Encoder",
    (Port("image", (None, None, "H", "W")),),
    (Port("latents", (None, None, "H/8", "W/8")),),
    part="encoder",
)


def clip_hidden(component: str) -> Graph:
    """CLIP's text encoder, read by its last but one layer."""
    module = "edgepress.models.text_graphs:ClipHidden"
    return Graph(component, component, module, (IDS,), (Port("hidden", (None, None, None)),))


def clip_pooled(component: str) -> Graph:
    """CLIP's text encoder, read where the prompt ends."""
    module = "edgepress.models.text_graphs:ClipPooled"
    return Graph(component, component, module, (IDS,), (Port("pooled", (None, None)),))


def clip_projected(component: str) -> Graph:
    """CLIP's text encoder with its projection, read by its last but one layer and where the prompt ends."""
    outputs = Port("hidden", (None, None, None)), Port("pooled", (None, None))
    return Graph(component, component, "edgepress.models.text_graphs:ClipProjected", (IDS,), outputs)


def t5(component: str, optional: bool = False) -> Graph:
    """T5's encoder. T: tokens of the prompt, padding among them."""
    inputs, outputs = (Port("ids", (None, "T"), "int64"),), (Port("hidden", (None, "T", None)),)
    return Graph(component, component, "edgepress.models.text_graphs:T5", inputs, outputs, optional)
