"""Graphs that several families share: the text encoders of CLIP and T5, and AutoencoderKL."""

from __future__ import annotations

from ..base.graph import Graph, Port

TEXT_ENCODERS = "edgepress.models.shared.text_encoders"
CLIP_IDS = Port("ids", (None, None), "int64")  # CLIP pads all prompts to one length

VAE_DECODER = Graph(
    "vae_decoder",
    "vae",
    "edgepress.models.shared.vae:VaeDecoder",
    (Port("latents", (None, None, "h", "w")),),
    (Port("image", (None, None, "8*h", "8*w")),),
)

# H and W must be multiples of 8.
VAE_ENCODER = Graph(
    "vae_encoder",
    "vae",
    "edgepress.models.shared.vae:VaeEncoder",
    (Port("image", (None, None, "H", "W")),),
    (Port("distribution", (None, None, "H/8", "W/8")),),
    submodule="encoder",
)


def make_clip_hidden_graph(component: str) -> Graph:
    """CLIP's text encoder; its output is that of the last but one layer."""
    return Graph(
        component, component, f"{TEXT_ENCODERS}:ClipHidden", (CLIP_IDS,), (Port("hidden", (None, None, None)),)
    )


def make_clip_pooled_graph(component: str) -> Graph:
    """CLIP's text encoder; its output is the row of the end token."""
    return Graph(component, component, f"{TEXT_ENCODERS}:ClipPooled", (CLIP_IDS,), (Port("pooled", (None, None)),))


def make_clip_projected_graph(component: str) -> Graph:
    """CLIP's text encoder with its projection; its outputs are the last but one layer's and the projected end token."""
    outputs = Port("hidden", (None, None, None)), Port("pooled", (None, None))
    return Graph(component, component, f"{TEXT_ENCODERS}:ClipProjected", (CLIP_IDS,), outputs)


def make_t5_graph(component: str, optional: bool = False) -> Graph:
    """T5's encoder. T: tokens of the prompt, padding included."""
    inputs, outputs = (Port("ids", (None, "T"), "int64"),), (Port("hidden", (None, "T", None)),)
    return Graph(component, component, f"{TEXT_ENCODERS}:T5Encoder", inputs, outputs, optional)


def make_rotary_ports(image: str, text: str) -> tuple[Port, ...]:
    """Tables of rotary embedding, with one value for each pair of channels: inputs of a denoiser.

    Args:
        image: Axis of the image's tokens.
        text: Axis of the prompt's tokens.
    """
    axes = {"image_cos": image, "image_sin": image, "text_cos": text, "text_sin": text}
    return tuple(Port(name, (axis, None)) for name, axis in axes.items())
