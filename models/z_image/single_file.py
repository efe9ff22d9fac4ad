"""The names of Z-Image's tensors in the files of ComfyUI, stable-diffusion.cpp and the original release.

Queries, keys and values are one layer there.
"""

from ..base.single_file import FusedRows, SingleFileLayout, SingleFileNames

TRANSFORMER_NAMES = SingleFileNames(
    renames=(
        (r"^all_(x_embedder|final_layer)\.2-1\.", r"\1."),
        (r"\.attention\.to_out\.0\.", ".attention.out."),
        (r"\.attention\.norm_([qk])\.", r".attention.\1_norm."),
    ),
    fused=(FusedRows((".to_q.weight", ".to_k.weight", ".to_v.weight"), ".qkv.weight"),),
)
LAYOUTS = {"ZImageTransformer2DModel": SingleFileLayout("lumina2", TRANSFORMER_NAMES)}
