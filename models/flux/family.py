"""FLUX.1: a transformer with two streams and then one; CLIP embeds the prompt as a whole, T5 token by token.

The modulation of the transformer adds a shift after the norms, so no scale folds into them, and none through the
activation of the feed-forward. Values fold: in blocks with two streams those of both, in the others into the part of
the output that reads them. The text encoders have no modulation. The dev variant was distilled with a guidance scale,
schnell was not.
"""

from ..base.family import Block, Component, Family, Fold
from ..base.graph import Graph, Port
from ..shared.common_graphs import VAE_DECODER, VAE_ENCODER, make_clip_pooled_graph, make_rotary_ports, make_t5_graph
from ..shared.denoiser_folds import JOINT_VALUE_FOLD
from ..shared.denoiser_folds import MODULE as FOLDS
from ..shared.text_encoder_folds import CLIP_BLOCKS, make_t5_component
from ..shared.vae_tiling import VAE_TILE_GRAPHS

# N: patches of the image. T: tokens of the prompt.
TRANSFORMER = Graph(
    "transformer",
    "transformer",
    "edgepress.models.flux.graphs:FluxTransformer",
    (
        Port("patches", (None, "N", None)),
        Port("timestep", (None,)),
        Port("hidden", (None, "T", None)),
        Port("pooled", (None, None)),
        *make_rotary_ports("N", "T"),
        Port("guidance", (None,), config_key="guidance_embeds"),
    ),
    (Port("velocity", (None, "N", None)),),
)

SINGLE_FOLD = Fold("attn.to_v", ("proj_out",), "rows", channels=f"{FOLDS}:list_attention_values")
TRANSFORMER_BLOCKS = (
    Block("transformer_blocks.*", (JOINT_VALUE_FOLD,)),
    Block("single_transformer_blocks.*", (SINGLE_FOLD,)),
)

FAMILY = Family(
    pipeline_class="FluxPipeline",
    denoiser="transformer",
    components=(
        Component(
            "text_encoder",
            "CLIPTextModel",
            CLIP_BLOCKS,
            role="text_encoder",
            weight_prefixes=(("CLIPTextModel", "text_model."),),
            embeddings=("embeddings.token_embedding",),
        ),
        make_t5_component("text_encoder_2"),
        Component("transformer", "FluxTransformer2DModel", TRANSFORMER_BLOCKS, role="denoiser"),
        Component("vae", "AutoencoderKL"),
    ),
    graphs=(
        make_clip_pooled_graph("text_encoder"),
        make_t5_graph("text_encoder_2"),
        TRANSFORMER,
        VAE_DECODER,
        *VAE_TILE_GRAPHS,
    ),
    optional_graphs=(VAE_ENCODER,),
    host="edgepress.models.flux.host:FluxHost",
    observer="edgepress.models.flux.reference:observe",
    passes_mu=True,
)
