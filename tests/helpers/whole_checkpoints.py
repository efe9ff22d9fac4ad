"""Whole checkpoints of tiny pipelines, under the names of their original releases."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgepress.models.base.single_file import SingleFileNames

Tensors = dict[str, Tensor]
# Names of an AutoencoderKL, and what the original release calls them. Its decoder counts blocks from the other end.
VAE_RENAMES = (
    (r"\.downsamplers\.0\.", ".downsample."),
    (r"\.upsamplers\.0\.", ".upsample."),
    (r"mid_block\.resnets\.0\.", "mid.block_1."),
    (r"mid_block\.resnets\.1\.", "mid.block_2."),
    (r"mid_block\.attentions\.0\.", "mid.attn_1."),
    (r"\.resnets\.(\d+)\.", r".block.\1."),
    (r"encoder\.down_blocks\.", "encoder.down."),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"group_norm", "norm"),
    (r"to_q", "q"),
    (r"to_k", "k"),
    (r"to_v", "v"),
    (r"to_out\.0", "proj_out"),
)
OPEN_CLIP_RENAMES = (
    (r"^text_model\.", ""),
    (r"^embeddings\.token_embedding\.", "token_embedding."),
    (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"^final_layer_norm\.", "ln_final."),
    (r"^text_projection\.weight", "text_projection"),
)


def read_component(folder: Path) -> Tensors:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def read_config(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text("utf-8")))


def name_denoiser(tensors: Tensors, names: SingleFileNames) -> Tensors:
    """A denoiser under the names of the release, with layers that are one there."""
    renamed = {}
    for name, rows in names.group(tensors).items():
        values = torch.cat([tensors[part] for part in rows.parts])
        renamed[name] = torch.cat(values.chunk(2)[::-1]) if rows.has_swapped_halves else values
    return renamed


def name_vae(tensors: Tensors) -> Tensors:
    blocks = 1 + max(int(match[1]) for name in tensors if (match := re.match(r"decoder\.up_blocks\.(\d+)", name)))
    renamed = {}
    for name, tensor in tensors.items():
        new = re.sub(r"decoder\.up_blocks\.(\d+)", lambda match: f"decoder.up.{blocks - 1 - int(match[1])}", name)
        for pattern, replacement in VAE_RENAMES:
            new = re.sub(pattern, replacement, new)
        is_matrix = ".attn_1." in new and tensor.ndim == 2
        renamed[new] = tensor[:, :, None, None] if is_matrix else tensor  # a convolution in the release
    return renamed


def name_open_clip(tensors: Tensors) -> Tensors:
    """CLIP's text encoder as OpenCLIP names it, with queries, keys and values in one tensor."""
    renamed = {}
    for name, tensor in tensors.items():
        match = re.search(r"encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)", name)
        if match:
            stem = f"transformer.resblocks.{match[1]}.attn.in_proj_{match[3]}"
            parts = [tensors[name.replace(f".{match[2]}_proj", f".{part}_proj")] for part in "qkv"]
            renamed[stem] = torch.cat(parts)
            continue
        new = name
        for pattern, replacement in OPEN_CLIP_RENAMES:
            new = re.sub(pattern, replacement, new)
        renamed[new] = tensor.T.contiguous() if new == "text_projection" else tensor
    return renamed


def name_clip(tensors: Tensors) -> Tensors:
    """CLIP's text encoder as transformers named it when these releases were made."""
    return {
        name if name.startswith(("text_model.", "text_projection")) else f"text_model.{name}": tensor
        for name, tensor in tensors.items()
    }


def write_checkpoint(file: Path, groups: Mapping[str, Tensors], **extra: Tensor) -> Path:
    """Writes tensors by what their names begin with, and further ones by name."""

    def iterate() -> Iterator[tuple[str, Tensor]]:
        for prefix, tensors in groups.items():
            for name, tensor in tensors.items():
                yield prefix + name, tensor.clone().contiguous()

    save_file(dict(iterate()) | extra, file)
    return file
