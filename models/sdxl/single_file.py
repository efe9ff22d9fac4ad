"""The names of Stable Diffusion XL's tensors in the files of ComfyUI, stable-diffusion.cpp and the original release.

Blocks are numbered through there: resnets, attentions and samplers are the entries of each.
"""

from collections.abc import Iterator

from ..base.single_file import Config, MakeLayout, SingleFileLayout, SingleFileNames

Renames = Iterator[tuple[str, str]]
RESNET = r"^((?:(?:in|out)put_blocks\.\d+|middle_block)\.[02])\."
MIDDLE_AND_OUTER_RENAMES = (
    (r"^mid_block\.resnets\.0\.", "middle_block.0."),
    (r"^mid_block\.attentions\.0\.", "middle_block.1."),
    (r"^mid_block\.resnets\.1\.", "middle_block.2."),
    (RESNET + r"norm1\.", r"\1.in_layers.0."),
    (RESNET + r"conv1\.", r"\1.in_layers.2."),
    (RESNET + r"norm2\.", r"\1.out_layers.0."),
    (RESNET + r"conv2\.", r"\1.out_layers.3."),
    (r"\.time_emb_proj\.", ".emb_layers.1."),
    (r"\.conv_shortcut\.", ".skip_connection."),
    (r"^time_embedding\.linear_1\.", "time_embed.0."),
    (r"^time_embedding\.linear_2\.", "time_embed.2."),
    (r"^add_embedding\.linear_1\.", "label_emb.0.0."),
    (r"^add_embedding\.linear_2\.", "label_emb.0.2."),
    (r"^conv_in\.", "input_blocks.0.0."),
    (r"^conv_norm_out\.", "out.0."),
    (r"^conv_out\.", "out.2."),
)


def make_unet_layout(config: Config) -> SingleFileLayout | None:
    """The layout for the numbers of blocks and layers in a UNet's config; other pipelines have UNets as well."""
    if config.get("addition_embed_type") != "text_time" or config.get("encoder_hid_dim_type"):
        return None
    renames = (*_rename_down_blocks(config), *_rename_up_blocks(config), *MIDDLE_AND_OUTER_RENAMES)
    return SingleFileLayout("sdxl", SingleFileNames(renames, prefix="model.diffusion_model."))


def _rename_down_blocks(config: Config) -> Renames:
    layers = config["layers_per_block"]
    for block in range(len(config["down_block_types"])):
        first = 1 + block * (layers + 1)  # the first entry is conv_in
        for layer in range(layers):
            yield rf"^down_blocks\.{block}\.resnets\.{layer}\.", f"input_blocks.{first + layer}.0."
            yield rf"^down_blocks\.{block}\.attentions\.{layer}\.", f"input_blocks.{first + layer}.1."
        yield rf"^down_blocks\.{block}\.downsamplers\.0\.conv\.", f"input_blocks.{first + layers}.0.op."


def _rename_up_blocks(config: Config) -> Renames:
    layers = config["layers_per_block"] + 1
    for block, kind in enumerate(config["up_block_types"]):
        first = block * layers
        for layer in range(layers):
            yield rf"^up_blocks\.{block}\.resnets\.{layer}\.", f"output_blocks.{first + layer}.0."
            yield rf"^up_blocks\.{block}\.attentions\.{layer}\.", f"output_blocks.{first + layer}.1."
        entry = 2 if "CrossAttn" in kind else 1
        yield rf"^up_blocks\.{block}\.upsamplers\.0\.conv\.", f"output_blocks.{first + layers - 1}.{entry}.conv."


LAYOUTS: dict[str, MakeLayout] = {"UNet2DConditionModel": make_unet_layout}
