"""The names of Stable Diffusion 3's tensors in the files of ComfyUI, stable-diffusion.cpp and the original release."""

from ..base.single_file import Config, MakeLayout, SingleFileLayout, SingleFileNames, fuse_layers

BLOCK = r"^transformer_blocks\.(\d+)\."
RENAMES = (
    (BLOCK + r"(attn2?)\.to_([qkv])\.", r"joint_blocks.\1.x_block.\2.qkv.\3."),
    (BLOCK + r"attn\.add_([qkv])_proj\.", r"joint_blocks.\1.context_block.attn.qkv.\2."),
    (BLOCK + r"(attn2?)\.norm_([qk])\.", r"joint_blocks.\1.x_block.\2.ln_\3."),
    (BLOCK + r"attn\.norm_added_([qk])\.", r"joint_blocks.\1.context_block.attn.ln_\2."),
    (BLOCK + r"(attn2?)\.to_out\.0\.", r"joint_blocks.\1.x_block.\2.proj."),
    (BLOCK + r"attn\.to_add_out\.", r"joint_blocks.\1.context_block.attn.proj."),
    (BLOCK + r"norm1\.linear\.", r"joint_blocks.\1.x_block.adaLN_modulation.1."),
    (BLOCK + r"norm1_context\.linear\.", r"joint_blocks.\1.context_block.adaLN_modulation.1."),
    (BLOCK + r"ff\.", r"joint_blocks.\1.x_block.mlp."),
    (BLOCK + r"ff_context\.", r"joint_blocks.\1.context_block.mlp."),
    (r"\.mlp\.net\.0\.proj\.", ".mlp.fc1."),
    (r"\.mlp\.net\.2\.", ".mlp.fc2."),
    (r"^pos_embed\.pos_embed$", "pos_embed"),
    (r"^pos_embed\.proj\.", "x_embedder.proj."),
    (r"^time_text_embed\.timestep_embedder\.", "t_embedder."),
    (r"^time_text_embed\.text_embedder\.", "y_embedder."),
    (r"^([ty]_embedder)\.linear_1\.", r"\1.mlp.0."),
    (r"^([ty]_embedder)\.linear_2\.", r"\1.mlp.2."),
    (r"^norm_out\.linear\.", "final_layer.adaLN_modulation.1."),
    (r"^proj_out\.", "final_layer.linear."),
)


def make_transformer_layout(config: Config) -> SingleFileLayout:
    """The last block only shifts and scales its text, as the final layer does; diffusers has scales first."""
    last = rf"joint_blocks\.{config['num_layers'] - 1}\.context_block"
    names = SingleFileNames(
        renames=RENAMES,
        fused=fuse_layers((".qkv.q", ".qkv.k", ".qkv.v"), ".qkv"),
        swapped=rf"^(final_layer|{last})\.adaLN_modulation\.1\.",
    )
    return SingleFileLayout("sd3", names)


LAYOUTS: dict[str, MakeLayout] = {"SD3Transformer2DModel": make_transformer_layout}
