"""The names of layers in LoRAs of several trainers."""

from __future__ import annotations

import pytest

from edgepress.models.shared.lora_bases import guess_lora_base

NAMES = {
    "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": "FLUX.1",
    "transformer.single_transformer_blocks.3.attn.to_q.lora_A.weight": "FLUX.1",
    "transformer.single_transformer_blocks.3.attn.to_qkv_mlp_proj.lora_A.weight": "FLUX.2",
    "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha": "Stable Diffusion XL",
    "unet.down_blocks.2.attentions.1.transformer_blocks.9.attn1.to_q.lora_A.weight": "Stable Diffusion XL",
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.alpha": "Stable Diffusion 1 or 2",
    "lora_unet_joint_blocks_7_x_block_attn_qkv.lora_up.weight": "Stable Diffusion 3",
    "transformer_blocks.0.img_mlp.net.2.lora_B.weight": "Qwen-Image",
    "diffusion_model.layers.4.attention.qkv.lora_A.weight": "Z-Image",
    "diffusion_model.blocks.4.cross_attn.k.lora_A.weight": "Wan",
    "some.other.layer.lora_A.weight": "",
}


@pytest.mark.parametrize(("name", "base"), NAMES.items())
def test_the_base_shows_in_the_names(name: str, base: str) -> None:
    assert guess_lora_base([name]) == base
