"""Text encoders in the format `pack-quantized` of compressed-tensors, which transformers and vLLM read.

Codes, scales and zero points are carried over exactly: both layouts hold unsigned codes, eight in an int32, and a zero
point of 4 bits for each group. Here codes are packed along the inputs, and zero points along the outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...common.progress import Progress
from ...numerics.affine import QuantizedWeight
from ...numerics.awq_packing import pack_nibbles
from ...storage.checkpoint import write_sharded
from ...storage.files import write_json
from ...storage.weight_export import ComponentRecord
from ...storage.weight_files import WEIGHT_FILE_STEMS
from ..graph.source_model import SourcePipeline
from ..weights.component import WeightReader, to_float
from ..weights.safetensors_record import record_safetensors

NIBBLE_ORDER = range(8)  # the lowest nibble holds the first code


def write_component(pipeline: SourcePipeline, name: str, folder: Path, progress: Progress) -> ComponentRecord:
    """Writes a text encoder into a new folder."""
    checkpoint = pipeline.open_checkpoint(name)
    weights = WeightReader(checkpoint, checkpoint.load_config())
    folder.mkdir()
    write_json(weights.config | {"quantization_config": build_quantization_config(weights)}, folder / "config.json")

    def iterate() -> Iterator[tuple[str, Tensor]]:
        names = weights.names()
        for number, weight in enumerate(names, 1):
            yield from _convert(weight, weights)
            progress(f"writing {name}", number, len(names))

    return record_safetensors(write_sharded(iterate(), folder, WEIGHT_FILE_STEMS["transformers"]), weights)


def _convert(name: str, weights: WeightReader) -> Iterator[tuple[str, Tensor]]:
    weight = weights.load(name)
    if isinstance(weight, QuantizedWeight):
        for kind, tensor in pack(weight).items():
            yield name + kind, tensor
    elif isinstance(weight, Tensor):
        yield name, weight
    else:
        yield name, to_float(weight).to(weights.float_dtype)


def pack(weight: QuantizedWeight) -> dict[str, Tensor]:
    """Packs a 4-bit weight (out, in) exactly.

    Returns:
        By what is added to the weight's name: `_packed` int32 (out, in / 8), `_zero_point` int32 (out / 8, groups),
        `_scale` float32 (out, groups), since readers compute in its dtype, and `_shape` int64 (2,).
    """
    codes, qparams = weight
    return {
        "_packed": pack_nibbles(codes, NIBBLE_ORDER),
        "_zero_point": pack_nibbles(qparams.zero_points.T, NIBBLE_ORDER).T.contiguous(),
        "_scale": qparams.scales,
        "_shape": torch.tensor(codes.shape, dtype=torch.int64),
    }


def build_quantization_config(weights: WeightReader) -> dict[str, Any]:
    """Returns `quantization_config`: a group for each number of inputs that share a scale, naming its layers."""
    layers: dict[int, list[str]] = {}
    for name, size in weights.group_sizes.items():
        layers.setdefault(size, []).append(f"re:^{re.escape(name)}$")
    groups = {
        f"group_{number}": {
            "targets": names,
            "weights": {
                "num_bits": 4,
                "type": "int",
                "symmetric": False,
                "strategy": "group",
                "group_size": size,
            },
        }
        for number, (size, names) in enumerate(sorted(layers.items(), reverse=True))
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [],
    }
