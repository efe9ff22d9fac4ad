"""Graphs that several families have: the text encoders of CLIP and T5, and AutoencoderKL."""

from __future__ import annotations

from ..base.graph import Graph, Port

CLIP_IDS = Port("ids", (None, None), "int64")  # of CLIP, whose prompts are all of one length

VAE_DECODER = Graph(
    "vae_decoder",
    "vae",
    "edgepress.models.shared.vae:Decoder",
    (Port("latents", (None, None, "h", "w")),),
    (Port("image", (None, None, "8*h", "8*w")),),
)

# Of pictures whose sides are multiples of 8.
VAE_ENCODER = Graph(
    "vae_encoder",
    "vae",
    "edgepress.models.shared.vae:Encoder",
    (Port("image", (None, None, "H", "W")),),
    (Port("latents", (None, None, "H/8", "W/8")),),
    submodule="encoder",
)


def make_clip_hidden_graph(component: str) -> Graph:
    """CLIP's text encoder, read by its last but one layer."""
    module = "edgepress.models.shared.text_encoders:ClipHidden"
    return Graph(component, component, module, (CLIP_IDS,), (Port("hidden", (None, None, None)),))


def make_clip_pooled_graph(component: str) -> Graph:
    """CLIP's text encoder, read where the prompt ends."""
    module = "edgepress.models.shared.text_encoders:ClipPooled"
    return Graph(component, component, module, (CLIP_IDS,), (Port("pooled", (None, None)),))


def make_clip_projected_graph(component: str) -> Graph:
    """CLIP's text encoder with its projection, read by its last but one layer and where the prompt ends."""
    outputs = Port("hidden", (None, None, None)), Port("pooled", (None, None))
    return Graph(component, component, "edgepress.models.shared.text_encoders:ClipProjected", (CLIP_IDS,), outputs)


def make_t5_graph(component: str, optional: bool = False) -> Graph:
    """T5's encoder. T: tokens of the prompt, padding among them."""
    inputs, outputs = (Port("ids", (None, "T"), "int64"),), (Port("hidden", (None, "T", None)),)
    return Graph(component, component, "edgepress.models.shared.text_encoders:T5", inputs, outputs, optional)
