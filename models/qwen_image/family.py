"""Qwen-Image: a transformer with two streams, the language model of Qwen2.5-VL as text encoder, and a VAE of videos.

The modulation of the transformer adds a shift after the norms, so no scale folds into it; the values of both streams
fold. Prompts have no images, so the text encoder's part for images is unused. An image is a video of one frame, for
which a causal convolution needs only the last slice of its kernel. Generating images needs only the decoder of the VAE.
"""

from dataclasses import replace

from ..base.family import Block, Component, Family
from ..base.graph import Graph, Port
from ..shared.common_graphs import VAE_ENCODER, make_rotary_ports
from ..shared.denoiser_folds import JOINT_VALUE_FOLD
from ..shared.text_encoder_folds import DECODER_FOLDS, PLAIN_DECODER_CHAINS

MODULES = "edgepress.models.qwen_image.graphs"
# T: tokens of the prompt and its template. L: those after the template's first part. N: patches of the image.
GRAPHS = (
    Graph(
        "text_encoder",
        "text_encoder",
        f"{MODULES}:QwenTextEncoder",
        (Port("ids", (None, "T"), "int64"),),
        (Port("hidden", (None, "T", None)),),
    ),
    Graph(
        "transformer",
        "transformer",
        f"{MODULES}:QwenTransformer",
        (
            Port("patches", (None, "N", None)),
            Port("timestep", (None,)),
            Port("hidden", (None, "L", None)),
            *make_rotary_ports("N", "L"),
        ),
        (Port("velocity", (None, "N", None)),),
    ),
    Graph(
        "vae_decoder",
        "vae",
        f"{MODULES}:QwenDecoder",
        (Port("latents", (None, None, "h", "w")),),
        (Port("image", (None, None, "8*h", "8*w")),),
    ),
)

FAMILY = Family(
    pipeline_class="QwenImagePipeline",
    denoiser="transformer",
    components=(
        Component(
            "text_encoder",
            "Qwen2_5_VLForConditionalGeneration",
            (Block("model.language_model.layers.*", DECODER_FOLDS, PLAIN_DECODER_CHAINS),),
            role="text_encoder",
            unused_modules=("model.visual",),
            embeddings=("model.language_model.embed_tokens",),
        ),
        Component(
            "transformer",
            "QwenImageTransformer2DModel",
            (Block("transformer_blocks.*", (JOINT_VALUE_FOLD,)),),
            role="denoiser",
        ),
        Component("vae", "AutoencoderKLQwenImage", unused_modules=("encoder",)),
    ),
    graphs=GRAPHS,
    optional_graphs=(replace(VAE_ENCODER, module=f"{MODULES}:QwenEncoder"),),
    host="edgepress.models.qwen_image.host:QwenImageHost",
    observer="edgepress.models.qwen_image.reference:observe",
    passes_mu=True,
)
