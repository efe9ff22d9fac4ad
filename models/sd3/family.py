"""Stable Diffusion 3 and 3.5: a transformer with two streams; two CLIP text encoders and T5 embed the prompt.

The modulation of the transformer adds a shift after the norms, so no scale folds into them. The values of both streams
fold, but in the last block, which has no output for the prompt's; so do those of the second attention that some blocks
have. The text encoders have no modulation. A pipeline may lack T5; it then passes zeros in place of T5's hidden states.
"""

from ..base.family import Block, Component, Family, Fold
from ..base.graph import Graph, Port
from ..shared.common_graphs import VAE_DECODER, VAE_ENCODER, make_clip_projected_graph, make_t5_graph
from ..shared.denoiser_folds import JOINT_VALUE_FOLD
from ..shared.text_encoder_folds import CLIP_PROJECTED_BLOCKS, make_t5_component
from ..shared.vae_tiling import VAE_TILE_GRAPHS

# N: patches of the image. L: tokens of CLIP and of T5.
TRANSFORMER = Graph(
    "transformer",
    "transformer",
    "edgepress.models.sd3.graphs:SD3Transformer",
    (
        Port("patches", (None, "N", None)),
        Port("positions", ("N",), "int64"),
        Port("timestep", (None,)),
        Port("hidden", (None, "L", None)),
        Port("pooled", (None, None)),
    ),
    (Port("velocity", (None, "N", None)),),
)

TRANSFORMER_FOLDS = (JOINT_VALUE_FOLD, Fold("attn2.to_v", ("attn2.to_out.0",), "rows"))
CLIP_EMBEDDINGS = ("text_model.embeddings.token_embedding",)
FAMILY = Family(
    pipeline_class="StableDiffusion3Pipeline",
    denoiser="transformer",
    components=(
        Component(
            "text_encoder",
            "CLIPTextModelWithProjection",
            CLIP_PROJECTED_BLOCKS,
            role="text_encoder",
            embeddings=CLIP_EMBEDDINGS,
        ),
        Component(
            "text_encoder_2",
            "CLIPTextModelWithProjection",
            CLIP_PROJECTED_BLOCKS,
            role="text_encoder",
            embeddings=CLIP_EMBEDDINGS,
        ),
        make_t5_component("text_encoder_3"),
        Component(
            "transformer",
            "SD3Transformer2DModel",
            (Block("transformer_blocks.*", TRANSFORMER_FOLDS),),
            role="denoiser",
        ),
        Component("vae", "AutoencoderKL"),
    ),
    graphs=(
        make_clip_projected_graph("text_encoder"),
        make_clip_projected_graph("text_encoder_2"),
        make_t5_graph("text_encoder_3", optional=True),
        TRANSFORMER,
        VAE_DECODER,
        *VAE_TILE_GRAPHS,
    ),
    optional_graphs=(VAE_ENCODER,),
    host="edgepress.models.sd3.host:SD3Host",
    observer="edgepress.models.sd3.reference:observe",
)
