"""Stable Diffusion XL: a UNet; two CLIP text encoders embed the prompt.

Scales fold into the norms of its attention blocks, whose biases are divided too, and into the values of the gated
activation, whose gate comes from the same linear.
"""

from ..base.family import Block, Component, Family, Fold
from ..base.graph import Graph, Port
from ..shared.common_graphs import VAE_DECODER, VAE_ENCODER, make_clip_hidden_graph, make_clip_projected_graph
from ..shared.denoiser_folds import MODULE as FOLDS
from ..shared.text_encoder_folds import CLIP_BLOCKS, CLIP_PROJECTED_BLOCKS
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

ATTENTION_FOLDS = (
    Fold("norm1", ("attn1.to_q", "attn1.to_k", "attn1.to_v"), "norm"),
    Fold("attn1.to_v", ("attn1.to_out.0",), "rows"),
    Fold("norm2", ("attn2.to_q",), "norm"),
    Fold("attn2.to_v", ("attn2.to_out.0",), "rows"),
    Fold("norm3", ("ff.net.0.proj",), "norm"),
    Fold("ff.net.0.proj", ("ff.net.2",), "rows", channels=f"{FOLDS}:list_first_half"),
)
UNET_BLOCKS = tuple(
    Block(f"{place}.attentions.*.transformer_blocks.*", ATTENTION_FOLDS)
    for place in ("down_blocks.*", "mid_block", "up_blocks.*")
)

FAMILY = Family(
    pipeline_class="StableDiffusionXLPipeline",
    denoiser="unet",
    components=(
        Component(
            "text_encoder",
            "CLIPTextModel",
            CLIP_BLOCKS,
            role="text_encoder",
            weight_prefixes=(("CLIPTextModel", "text_model."),),
            embeddings=("embeddings.token_embedding",),
        ),
        Component(
            "text_encoder_2",
            "CLIPTextModelWithProjection",
            CLIP_PROJECTED_BLOCKS,
            role="text_encoder",
            embeddings=("text_model.embeddings.token_embedding",),
        ),
        Component("unet", "UNet2DConditionModel", UNET_BLOCKS, role="denoiser"),
        Component("vae", "AutoencoderKL"),
    ),
    graphs=(
        make_clip_hidden_graph("text_encoder"),
        make_clip_projected_graph("text_encoder_2"),
        UNET,
        VAE_DECODER,
        *VAE_TILE_GRAPHS,
    ),
    optional_graphs=(VAE_ENCODER,),
    host="edgepress.models.sdxl.host:SDXLHost",
    observer="edgepress.models.sdxl.reference:observe",
)
