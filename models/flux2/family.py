"""FLUX.2 klein: a transformer with two streams and then one, and a Qwen3 text encoder.

The pipeline concatenates the states after three layers of the text encoder; later layers are unused. Otherwise it is
the text encoder of Z-Image, and stored under the same names. The modulation of the transformer, which all blocks share,
adds a shift after norms, so no scale folds into it; values fold, and so does what gates multiply. The latents of the
VAE are normalized by the statistics of a batch norm, patch by patch. Generating images needs only the decoder of the
VAE.
"""

from ..base.family import Block, Component, Family, Fold
from ..base.graph import Graph, Port
from ..shared.common_graphs import make_rotary_ports
from ..shared.denoiser_folds import JOINT_VALUE_FOLD
from ..shared.denoiser_folds import MODULE as FOLDS
from ..shared.text_encoder_folds import DECODER_CHAINS, DECODER_FOLDS
from ..shared.vae_tiling import VAE_TILE_GRAPHS
from .layers import READ_LAYERS

MODULES = "edgepress.models.flux2.graphs"
# T: tokens of the prompt, padded. N: patches of the image.
GRAPHS = (
    Graph(
        "text_encoder",
        "text_encoder",
        f"{MODULES}:KleinTextEncoder",
        (Port("ids", (None, "T"), "int64"), Port("mask", (None, None, "T", "T"))),
        (Port("hidden", (None, "T", None)),),
        read_blocks=READ_LAYERS,
    ),
    Graph(
        "transformer",
        "transformer",
        f"{MODULES}:KleinTransformer",
        (
            Port("patches", (None, "N", None)),
            Port("timestep", (None,)),
            Port("hidden", (None, "T", None)),
            *make_rotary_ports("N", "T"),
        ),
        (Port("velocity", (None, "N", None)),),
    ),
    Graph(
        "vae_decoder",
        "vae",
        f"{MODULES}:KleinDecoder",
        (Port("latents", (None, None, "h", "w")),),
        (Port("image", (None, None, "16*h", "16*w")),),
    ),
    Graph(
        VAE_TILE_GRAPHS[0].name,
        "vae",
        f"{MODULES}:KleinFirstStage",
        (Port("latents", (None, None, "h", "w")),),
        (Port("features", (None, None, "2*h", "2*w")),),
    ),
    *VAE_TILE_GRAPHS[1:],
)

TRANSFORMER_BLOCKS = (
    Block(
        "transformer_blocks.*",
        (
            JOINT_VALUE_FOLD,
            Fold("ff.linear_in", ("ff.linear_out",), "rows", channels=f"{FOLDS}:list_second_half"),
            Fold("ff_context.linear_in", ("ff_context.linear_out",), "rows", channels=f"{FOLDS}:list_second_half"),
        ),
    ),
    Block(
        "single_transformer_blocks.*",
        (Fold("attn.to_qkv_mlp_proj", ("attn.to_out",), "rows", channels=f"{FOLDS}:list_fused_values"),),
    ),
)

FAMILY = Family(
    pipeline_class="Flux2KleinPipeline",
    denoiser="transformer",
    components=(
        Component(
            "text_encoder",
            "Qwen3Model",
            (Block("layers.*", DECODER_FOLDS, DECODER_CHAINS),),
            role="text_encoder",
            num_used_blocks=READ_LAYERS[-1],
            weight_prefixes=(("Qwen3ForCausalLM", "model."),),
            embeddings=("embed_tokens",),
        ),
        Component("transformer", "Flux2Transformer2DModel", TRANSFORMER_BLOCKS, role="denoiser"),
        Component("vae", "AutoencoderKLFlux2", unused_modules=("encoder",)),
    ),
    graphs=GRAPHS,
    host="edgepress.models.flux2.host:KleinHost",
    observer="edgepress.models.flux2.reference:observe",
    uses_chat_template=True,
    passes_mu=True,
)
