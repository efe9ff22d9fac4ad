"""What model a LoRA was made for, by the names in its file."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What only LoRAs of these models have in a name, with "_" for ".", the most specific first.
SIGNS = {
    "FLUX.2": r"to_qkv_mlp_proj|(double|single)_stream_modulation",
    "Chroma": r"distilled_guidance_layer",
    "FLUX.1": r"(^|_)(double|single)_blocks_\d|single_transformer_blocks_\d",
    "Stable Diffusion XL": r"^lora_te2_|(down|up|input|output)_blocks_\d.*_transformer_blocks_[1-9]",
    "Stable Diffusion 1 or 2": r"(^|_)((down|up|input|output)_blocks|(mid|middle)_block)_",
    "Stable Diffusion 3": r"(^|_)joint_blocks_\d",
    "Qwen-Image": r"transformer_blocks_\d+_(img|txt)_(mlp|mod)|transformer_blocks_[45]\d_attn_",
    "Z-Image": r"(^|_)layers_\d+_attention_(to_|qkv|out)|(noise|context)_refiner_\d",
    "Wan": r"(^|_)blocks_\d+_(self|cross)_attn_",
}


def guess_lora_base(names: Iterable[str]) -> str:
    """Guesses what model names of layers or of tensors belong to, also in the spelling of kohya; "" if none is known.

    Args:
        names: The names.
    """
    spelled = [name.replace(".", "_") for name in names]
    return next((base for base, sign in SIGNS.items() if any(re.search(sign, name) for name in spelled)), "")
