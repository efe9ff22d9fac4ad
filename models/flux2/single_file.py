"""The names of FLUX.2's tensors in the files of ComfyUI, stable-diffusion.cpp and the original release.

Both names of the architecture are those of FLUX.1: readers recognize FLUX.2 by its tensors.
"""

from ..base.single_file import SingleFileLayout, SingleFileNames
from ..flux.single_file import (
    ATTENTION,
    DOUBLE,
    DOUBLE_BLOCK_RENAMES,
    FINAL_MODULATION,
    OUTER_RENAMES,
    SINGLE,
    SINGLE_BLOCK_RENAMES,
)

LAYOUTS = {
    "Flux2Transformer2DModel": SingleFileLayout(
        "flux",
        SingleFileNames(
            renames=(
                *DOUBLE_BLOCK_RENAMES,
                (DOUBLE + r"ff\.linear_in\.", r"double_blocks.\1.img_mlp.0."),
                (DOUBLE + r"ff\.linear_out\.", r"double_blocks.\1.img_mlp.2."),
                (DOUBLE + r"ff_context\.linear_in\.", r"double_blocks.\1.txt_mlp.0."),
                (DOUBLE + r"ff_context\.linear_out\.", r"double_blocks.\1.txt_mlp.2."),
                *SINGLE_BLOCK_RENAMES,
                (SINGLE + r"attn\.to_qkv_mlp_proj\.", r"single_blocks.\1.linear1."),
                (SINGLE + r"attn\.to_out\.", r"single_blocks.\1.linear2."),
                (r"^(\w+_stream_modulation\w*)\.linear\.", r"\1.lin."),
                *OUTER_RENAMES,
            ),
            fused=ATTENTION,
            swapped="^" + FINAL_MODULATION.replace(".", r"\."),
        ),
    )
}
