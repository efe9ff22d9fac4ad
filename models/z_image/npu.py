"""Z-Image on an NPU: its graphs, their shapes, and where they can be split.

T and L: tokens of the longest prompt. N: patches of the image, padded. The image's tokens are refined by a graph of
their own: if one graph slices the tables of all tokens for them, rknn-toolkit2 2.5.0 searches for a rewriting until it
gives up after 300 s.
"""

from ..base.graph import Graph, Port
from ..base.npu import BlockStack, NpuSpec
from ..shared.common_graphs import VAE_DECODER

MODULE = "edgepress.models.z_image.npu_graphs"
ROTARY_MODULES = ("*attention.to_q", "*attention.to_k", "*attention.norm_q", "*attention.norm_k")

NPU = NpuSpec(
    graphs=(
        Graph(
            "text_encoder",
            "text_encoder",
            f"{MODULE}:NpuTextEncoder",
            (Port("embeddings", (None, "T", None)),),
            (Port("hidden", (None, "T", None)),),
        ),
        Graph(
            "caption",
            "transformer",
            f"{MODULE}:NpuTextRefiner",
            (
                Port("hidden", (None, "L", None)),
                Port("pad", (None, "L", None)),
                Port("cos", ("L", None)),
                Port("sin", ("L", None)),
                Port("mask", (None, None, None, "L")),
            ),
            (Port("caption", (None, "L", None)),),
        ),
        Graph(
            "image",
            "transformer",
            f"{MODULE}:NpuImageRefiner",
            (
                Port("patches", (None, "N", None)),
                Port("pad", (None, "N", None)),
                Port("time", (None, None)),
                Port("cos", ("N", None)),
                Port("sin", ("N", None)),
                Port("mask", (None, None, None, "N")),
            ),
            (Port("states", (None, "N", None)),),
        ),
        Graph(
            "transformer",
            "transformer",
            f"{MODULE}:NpuTransformer",
            (
                Port("states", (None, "N+L", None)),
                Port("time", (None, None)),
                Port("cos", ("N+L", None)),
                Port("sin", ("N+L", None)),
                Port("mask", (None, None, None, "N+L")),
            ),
            (Port("velocity", (None, "N+L", None)),),
        ),
        VAE_DECODER,
    ),
    stacks={
        "text_encoder": BlockStack("layers", unused_blocks=1),
        "transformer": BlockStack("layers", extra_modules=("t_embedder", "all_final_layer")),
    },
    host="edgepress.models.z_image.npu_host:ZImageNpuHost",
    split_half_modules={"transformer": ROTARY_MODULES},
    head_config_keys=("dim", "n_heads"),
    token_embedding=("text_encoder", "embed_tokens"),
)
