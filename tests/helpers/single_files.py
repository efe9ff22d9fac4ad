"""Single files of weights: components of a pipeline as GGUF and safetensors, under the names of other programs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import gguf
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

ARCHITECTURE = "lumina2"  # of the transformer


def read_component(component: Path) -> dict[str, Tensor]:
    """All tensors of a component's folder."""
    (file,) = component.glob("*.safetensors")
    return load_file(file)


def use_original_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a transformer under the names of the original release, in which q, k and v are one layer."""
    renamed = {}
    for name, tensor in tensors.items():
        if name.endswith((".to_k.weight", ".to_v.weight")):
            continue
        if name.endswith(".to_q.weight"):
            parts = [tensors[name.replace("to_q", part)] for part in ("to_q", "to_k", "to_v")]
            name, tensor = name.replace("to_q", "qkv"), torch.cat(parts)
        name = re.sub(r"^all_(x_embedder|final_layer)\.2-1\.", r"\1.", name).replace("to_out.0", "out")
        renamed[re.sub(r"norm_([qk])\.", r"\1_norm.", name)] = tensor
    return renamed


def write_gguf(tensors: Mapping[str, Tensor], file: Path, architecture: str = ARCHITECTURE, kind: str = "F32") -> Path:
    """Writes a GGUF file with all matrices in one type, and the rest in F32."""
    writer = gguf.GGUFWriter(file, architecture)
    for name, tensor in tensors.items():
        values = tensor.float().numpy()
        is_block = kind == "F32" or values.ndim != 2 or values.shape[1] % gguf.GGML_QUANT_SIZES[_type(kind)][0]
        if is_block:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, _type(kind)), raw_dtype=_type(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def write_safetensors(tensors: Mapping[str, Tensor], file: Path) -> Path:
    """Writes a safetensors file."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    return file


def _type(kind: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[kind]
