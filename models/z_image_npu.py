"""Z-Image on an NPU: which graphs, with which shapes, and where they can be cut. T and L: tokens of the longest prompt.

N: patches of the image, padded. The image's tokens are refined by a graph of their own: where one graph slices the
tables of all tokens for them, rknn-toolkit2 2.5.0 searches for a rewriting until it gives up after 300 s.
"""

from .graphs import Graph, Port
from .npu import Npu, Stack

MODULES = "edgepress.models.z_image_npu_graphs"
TURNED = ("*attention.to_q", "*attention.to_k", "*attention.norm_q", "*attention.norm_k")

NPU = Npu(
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
            "edgepress.models.vae_graphs:Decoder",
            (Port("latents", (None, None, "h", "w")),),
            (Port("image", (None, None, "8*h", "8*w")),),
        ),
    ),
    stacks={
        "text_encoder": Stack("layers", unread=1),
        "transformer": Stack("layers", around=("t_embedder", "all_final_layer")),
    },
    host="edgepress.models.z_image_npu_host:Host",
    halves={"transformer": TURNED},
    heads=("dim", "n_heads"),
    embeddings=("text_encoder", "embed_tokens"),
)
