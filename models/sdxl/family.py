"""Stable Diffusion XL: a UNet; two CLIP text encoders embed the prompt.

Its norms add a bias, so no scale folds into them.
"""

from ..base.family import Component, Family
from ..base.graph import Graph, Port
from ..shared.common_graphs import VAE_DECODER, make_clip_hidden_graph, make_clip_projected_graph
from ..shared.vae_tiling import VAE_TILE_GRAPHS

# h, w: rows and columns of latents. L: tokens of the prompt; CLIP pads to 77.
UNET = Graph(
    "unet",
    "unet",
    "edgepress.models.sdxl.graphs:SDXLUNet",
    (
        Port("latents", (None, None, "h", "w")),
        Port("timestep", (None,)),
        Port("hidden", (None, "L", None)),
        Port("pooled", (None, None)),
        Port("time_ids", (None, None)),
        Port("guidance", (None, None), config_key="time_cond_proj_dim"),
    ),
    (Port("noise", (None, None, "h", "w")),),
)

FAMILY = Family(
    pipeline_class="StableDiffusionXLPipeline",
    denoiser="unet",
    components=(
        Component(
            "text_encoder",
            "CLIPTextModel",
            role="text_encoder",
            weight_prefixes=(("CLIPTextModel", "text_model."),),
            embeddings=("embeddings.token_embedding",),
        ),
        Component(
            "text_encoder_2",
            "CLIPTextModelWithProjection",
            role="text_encoder",
            embeddings=("text_model.embeddings.token_embedding",),
        ),
        Component("unet", "UNet2DConditionModel", role="denoiser"),
        Component("vae", "AutoencoderKL"),
    ),
    graphs=(
        make_clip_hidden_graph("text_encoder"),
        make_clip_projected_graph("text_encoder_2"),
        UNET,
        VAE_DECODER,
        *VAE_TILE_GRAPHS,
    ),
    host="edgepress.models.sdxl.host:SDXLHost",
    observer="edgepress.models.sdxl.reference:observe",
)
