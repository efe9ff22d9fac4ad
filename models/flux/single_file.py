"""The names of FLUX.1's tensors in the files of ComfyUI, stable-diffusion.cpp and the original release."""

from ..base.single_file import SingleFileLayout, SingleFileNames, fuse_layers

DOUBLE, SINGLE = r"^transformer_blocks\.(\d+)\.", r"^single_transformer_blocks\.(\d+)\."
FINAL_MODULATION = "final_layer.adaLN_modulation.1."  # shift and scale; in diffusers scale and shift
# Of blocks with two streams, up to the feed-forward networks, whose names differ between FLUX.1 and FLUX.2.
DOUBLE_BLOCK_RENAMES = (
    (DOUBLE + r"attn\.to_([qkv])\.", r"double_blocks.\1.img_attn.qkv.\2."),
    (DOUBLE + r"attn\.add_([qkv])_proj\.", r"double_blocks.\1.txt_attn.qkv.\2."),
    (DOUBLE + r"attn\.norm_q\.weight$", r"double_blocks.\1.img_attn.norm.query_norm.scale"),
    (DOUBLE + r"attn\.norm_k\.weight$", r"double_blocks.\1.img_attn.norm.key_norm.scale"),
    (DOUBLE + r"attn\.norm_added_q\.weight$", r"double_blocks.\1.txt_attn.norm.query_norm.scale"),
    (DOUBLE + r"attn\.norm_added_k\.weight$", r"double_blocks.\1.txt_attn.norm.key_norm.scale"),
    (DOUBLE + r"attn\.to_out\.0\.", r"double_blocks.\1.img_attn.proj."),
    (DOUBLE + r"attn\.to_add_out\.", r"double_blocks.\1.txt_attn.proj."),
)
SINGLE_BLOCK_RENAMES = (
    (SINGLE + r"attn\.norm_q\.weight$", r"single_blocks.\1.norm.query_norm.scale"),
    (SINGLE + r"attn\.norm_k\.weight$", r"single_blocks.\1.norm.key_norm.scale"),
)
OUTER_RENAMES = (
    (r"^context_embedder\.", "txt_in."),
    (r"^x_embedder\.", "img_in."),
    (r"^\w+\.timestep_embedder\.", "time_in."),
    (r"^\w+\.guidance_embedder\.", "guidance_in."),
    (r"^\w+\.text_embedder\.", "vector_in."),
    (r"^(\w+_in)\.linear_1\.", r"\1.in_layer."),
    (r"^(\w+_in)\.linear_2\.", r"\1.out_layer."),
    (r"^norm_out\.linear\.", FINAL_MODULATION),
    (r"^proj_out\.", "final_layer.linear."),
)
ATTENTION = fuse_layers((".qkv.q", ".qkv.k", ".qkv.v"), ".qkv")
LAYOUTS = {
    "FluxTransformer2DModel": SingleFileLayout(
        "flux",
        SingleFileNames(
            renames=(
                *DOUBLE_BLOCK_RENAMES,
                (DOUBLE + r"norm1\.linear\.", r"double_blocks.\1.img_mod.lin."),
                (DOUBLE + r"norm1_context\.linear\.", r"double_blocks.\1.txt_mod.lin."),
                (DOUBLE + r"ff\.net\.(0\.proj|2)\.", r"double_blocks.\1.img_mlp.\2."),
                (DOUBLE + r"ff_context\.net\.(0\.proj|2)\.", r"double_blocks.\1.txt_mlp.\2."),
                (r"_mlp\.0\.proj\.", "_mlp.0."),
                *SINGLE_BLOCK_RENAMES,
                (SINGLE + r"norm\.linear\.", r"single_blocks.\1.modulation.lin."),
                (SINGLE + r"attn\.to_([qkv])\.", r"single_blocks.\1.linear1.\2."),
                (SINGLE + r"proj_mlp\.", r"single_blocks.\1.linear1.mlp."),
                (SINGLE + r"proj_out\.", r"single_blocks.\1.linear2."),
                *OUTER_RENAMES,
            ),
            fused=(
                *ATTENTION,
                *fuse_layers((".linear1.q", ".linear1.k", ".linear1.v", ".linear1.mlp"), ".linear1"),
            ),
            swapped="^" + FINAL_MODULATION.replace(".", r"\."),
        ),
    )
}
