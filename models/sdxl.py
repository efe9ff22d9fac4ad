"""Stable Diffusion XL: a UNet; two text encoders of CLIP read prompts.

Its norms shift, so that no scale folds into them: it is exported, not pressed.
"""

from .family import Component, Family
from .graphs import Graph, Port
from .parts import VAE_DECODER, clip_hidden, clip_projected

# h, w: rows and columns of latents. L: tokens of the prompt, 77 in one piece.
UNET = Graph(
    "unet",
    "unet",
    "edgepress.models.sdxl_graphs:Unet",
    (
        Port("latents", (None, None, "h", "w")),
        Port("timestep", (None,)),
        Port("hidden", (None, "L", None)),
        Port("pooled", (None, None)),
        Port("time_ids", (None, None)),
        Port("guidance", (None, None), when="time_cond_proj_dim"),
    ),
    (Port("noise", (None, None, "h", "w")),),
)

FAMILY = Family(
    pipeline="StableDiffusionXLPipeline",
    denoiser="unet",
    components=(
        Component(
            "text_encoder",
            "CLIPTextModel",
            (),
            wrapped_in=(("CLIPTextModel", "text_model."),),
            embeddings=("embeddings.token_embedding",),
        ),
        Component(
            "text_encoder_2",
            "CLIPTextModelWithProjection",
            (),
            embeddings=("text_model.embeddings.token_embedding",),
        ),
        Component("unet", "UNet2DConditionModel", ()),
        Component("vae", "AutoencoderKL", ()),
    ),
    graphs=(clip_hidden("text_encoder"), clip_projected("text_encoder_2"), UNET, VAE_DECODER),
    reference="edgepress.models.sdxl_reference:observe",
    patch=1,
)
