"""Z-Image on an NPU: which graphs, with which shapes, and where they can be cut. T and L: tokens of the longest prompt.

N: patches of the image, padded. The image's tokens are refined by a graph of their own: where one graph slices the
tables of all tokens for them, rknn-toolkit2 2.5.0 searches for a rewriting until it gives up after 300 s.
"""

from ..base.graph import Graph, Port
from ..base.npu import BlockStack, NpuSpec

MODULES = "edgepress.models.z_image.npu_graphs"
ROTARY_MODULES = ("*attention.to_q", "*attention.to_k", "*attention.norm_q", "*attention.norm_k")

NPU = NpuSpec(
    graphs=(
        Graph(
            "text_encoder",
            "text_encoder",
            f"{MODULES}:TextEncoder",
            (Port("embeddings", (None, "T", None)),),
            (Port("hidden", (None, "T", None)),),
        ),
        Graph(
            "caption",
            "transformer",
            f"{MODULES}:Caption",
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
            f"{MODULES}:Image",
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
            f"{MODULES}:Transformer",
            (
                Port("states", (None, "N+L", None)),
                Port("time", (None, None)),
                Port("cos", ("N+L", None)),
                Port("sin", ("N+L", None)),
                Port("mask", (None, None, None, "N+L")),
            ),
            (Port("velocity", (None, "N+L", None)),),
        ),
        Graph(
            "vae_decoder",
            "vae",
            "edgepress.models.shared.vae:Decoder",
            (Port("latents", (None, None, "h", "w")),),
            (Port("image", (None, None, "8*h", "8*w")),),
        ),
    ),
    stacks={
        "text_encoder": BlockStack("layers", unused_blocks=1),
        "transformer": BlockStack("layers", extra_modules=("t_embedder", "all_final_layer")),
    },
    host="edgepress.models.z_image.npu_host:Host",
    split_half_modules={"transformer": ROTARY_MODULES},
    head_config_keys=("dim", "n_heads"),
    token_embedding=("text_encoder", "embed_tokens"),
)
