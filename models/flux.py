"""Flux.1: a transformer of two streams and then one; CLIP reads prompts as a whole and T5 token by token.

Its modulation shifts what its norms give, so that no scale folds into them: it is exported, not pressed. The dev
variant was distilled to know of a guidance scale, schnell was not.
"""

from .family import Component, Family
from .graphs import Graph, Port
from .parts import VAE_DECODER, clip_pooled, t5

# N: patches of the image. T: tokens of the prompt. cos and sin are of pairs of channels.
TRANSFORMER = Graph(
    "transformer",
    "transformer",
    "edgepress.models.flux_graphs:Transformer",
    (
        Port("patches", (None, "N", None)),
        Port("timestep", (None,)),
        Port("hidden", (None, "T", None)),
        Port("pooled", (None, None)),
        Port("image_cos", ("N", None)),
        Port("image_sin", ("N", None)),
        Port("text_cos", ("T", None)),
        Port("text_sin", ("T", None)),
        Port("guidance", (None,), when="guidance_embeds"),
    ),
    (Port("velocity", (None, "N", None)),),
)

FAMILY = Family(
    pipeline="FluxPipeline",
    denoiser="transformer",
    components=(
        Component(
            "text_encoder",
            "CLIPTextModel",
            (),
            wrapped_in=(("CLIPTextModel", "text_model."),),
            embeddings=("embeddings.token_embedding",),
        ),
        Component("text_encoder_2", "T5EncoderModel", (), embeddings=("shared",)),
        Component("transformer", "FluxTransformer2DModel", ()),
        Component("vae", "AutoencoderKL", ()),
    ),
    graphs=(clip_pooled("text_encoder"), t5("text_encoder_2"), TRANSFORMER, VAE_DECODER),
    reference="edgepress.models.flux_reference:observe",
    patch=2,
)
