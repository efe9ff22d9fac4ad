"""Stable Diffusion 3 and 3.5: a transformer of two streams; two text encoders of CLIP read prompts, and T5.

Its modulation shifts what its norms give, so that no scale folds into them: it is exported, not pressed. T5 may be left
out of a pipeline, which then feeds zeros in its place.
"""

from .family import Component, Family
from .graphs import Graph, Port
from .parts import VAE_DECODER, clip_projected, t5

# N: patches of the image. L: tokens of CLIP and of T5.
TRANSFORMER = Graph(
    "transformer",
    "transformer",
    "edgepress.models.sd3_graphs:Transformer",
    (
        Port("patches", (None, "N", None)),
        Port("positions", ("N",), "int64"),
        Port("timestep", (None,)),
        Port("hidden", (None, "L", None)),
        Port("pooled", (None, None)),
    ),
    (Port("velocity", (None, "N", None)),),
)

TOKENS = ("text_model.embeddings.token_embedding",)
FAMILY = Family(
    pipeline="StableDiffusion3Pipeline",
    denoiser="transformer",
    components=(
        Component("text_encoder", "CLIPTextModelWithProjection", (), embeddings=TOKENS),
        Component("text_encoder_2", "CLIPTextModelWithProjection", (), embeddings=TOKENS),
        Component("text_encoder_3", "T5EncoderModel", (), embeddings=("shared",)),
        Component("transformer", "SD3Transformer2DModel", ()),
        Component("vae", "AutoencoderKL", ()),
    ),
    graphs=(
        clip_projected("text_encoder"),
        clip_projected("text_encoder_2"),
        t5("text_encoder_3", optional=True),
        TRANSFORMER,
        VAE_DECODER,
    ),
    reference="edgepress.models.sd3_reference:observe",
    patch=2,
)
