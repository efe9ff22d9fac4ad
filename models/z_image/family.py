"""Z-Image and Z-Image-Turbo: a single-stream DiT whose modulation only scales, and a Qwen3 text encoder.

The modulation multiplies and adds no shift, so scales fold into the RMSNorm weights before it. The pipeline reads
`hidden_states[-2]`, so the last layer of the text encoder is unused. Queries and keys are normalized, and so are the
outputs of the attention and of the feed-forward of the transformer; a division before these norms cancels. The
published text encoder is stored as a causal language model, whose tensor names begin with `model.`. Generating images
needs only the decoder of the VAE.
"""

from ..base.family import Block, Component, Family, Fold, ShiftChain
from ..base.graph import Graph, Port
from ..shared.common_graphs import VAE_DECODER, VAE_ENCODER
from ..shared.text_encoder_folds import DECODER_CHAINS, DECODER_FOLDS
from ..shared.vae_tiling import VAE_TILE_GRAPHS

DIT_FOLDS = (
    Fold("attention_norm1", ("attention.to_q", "attention.to_k", "attention.to_v"), "norm"),
    Fold("attention.to_v", ("attention.to_out.0",), "rows"),
    Fold("ffn_norm1", ("feed_forward.w1", "feed_forward.w3"), "norm"),
    Fold("feed_forward.w3", ("feed_forward.w2",), "rows"),
)
DIT_CHAINS = (
    ShiftChain(("attention.to_q",)),
    ShiftChain(("attention.to_k",)),
    ShiftChain(("attention.to_v", "attention.to_out.0")),
    ShiftChain(("feed_forward.w3", "feed_forward.w2")),
)
# T: tokens of the prompt. L: the same, padded. N: patches of the image, padded.
# cos and sin have one value for each pair of channels.
GRAPHS = (
    Graph(
        "text_encoder",
        "text_encoder",
        "edgepress.models.z_image.graphs:ZImageTextEncoder",
        (Port("ids", (None, "T"), "int64"),),
        (Port("hidden", (None, "T", None)),),
    ),
    Graph(
        "caption",
        "transformer",
        "edgepress.models.z_image.graphs:ZImageTextRefiner",
        (
            Port("hidden", (None, "L", None)),
            Port("pad", (None, "L", None)),
            Port("cos", ("L", None)),
            Port("sin", ("L", None)),
        ),
        (Port("caption", (None, "L", None)),),
    ),
    Graph(
        "transformer",
        "transformer",
        "edgepress.models.z_image.graphs:ZImageTransformer",
        (
            Port("patches", (None, "N", None)),
            Port("pad", (None, "N", None)),
            Port("timestep", (None,)),
            Port("caption", (None, "L", None)),
            Port("image_cos", ("N", None)),
            Port("image_sin", ("N", None)),
            Port("caption_cos", ("L", None)),
            Port("caption_sin", ("L", None)),
        ),
        (Port("velocity", (None, "N", None)),),
    ),
    VAE_DECODER,
    *VAE_TILE_GRAPHS,
)

FAMILY = Family(
    pipeline_class="ZImagePipeline",
    denoiser="transformer",
    components=(
        Component(
            "text_encoder",
            "Qwen3Model",
            (Block("layers.*", DECODER_FOLDS, DECODER_CHAINS),),
            role="text_encoder",
            unused_blocks=1,
            weight_prefixes=(("Qwen3ForCausalLM", "model."),),
            embeddings=("embed_tokens",),
        ),
        Component(
            "transformer",
            "ZImageTransformer2DModel",
            (
                Block("noise_refiner.*", DIT_FOLDS, DIT_CHAINS),
                Block("context_refiner.*", DIT_FOLDS, DIT_CHAINS),
                Block("layers.*", DIT_FOLDS, DIT_CHAINS),
            ),
            role="denoiser",
        ),
        Component("vae", "AutoencoderKL", unused_modules=("encoder",)),
    ),
    graphs=GRAPHS,
    optional_graphs=(VAE_ENCODER,),
    host="edgepress.models.z_image.host:ZImageHost",
    reference="edgepress.models.z_image.reference:compute_reference",
    uses_chat_template=True,
    passes_mu=True,
    npu="edgepress.models.z_image.npu:NPU",
)
