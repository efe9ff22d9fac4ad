"""Exports text encoders in the format `pack-quantized` of compressed-tensors, which transformers and vLLM read.

Codes, scales and zero points are carried over exactly: both layouts hold unsigned codes, eight in an int32, and a zero
point of 4 bits for each group. Here codes are packed along the inputs, and zero points along the outputs.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...common.progress import Progress, no_progress
from ...numerics.affine import QuantizedWeight
from ...numerics.awq_packing import pack_nibbles
from ...storage.checkpoint import write_sharded
from ...storage.files import write_json
from ...storage.layout import COMPRESSED_TENSORS
from ...storage.weight_export import ComponentRecord
from ...storage.weight_files import WEIGHT_FILE_STEMS
from ..graph.source_model import SourcePipeline
from ..weights.component import WeightReader, to_float
from ..weights.publishing import WeightExportResult, open_export
from ..weights.safetensors_record import record_safetensors

NIBBLE_ORDER = range(8)  # the lowest nibble holds the first code


def export_compressed_tensors(
    source: str | Path, output: str | Path, *, progress: Progress = no_progress
) -> WeightExportResult:
    """Exports the quantized text encoders of a pipeline to `output/compressed-tensors`, a folder for each.

    Args:
        source: An artifact folder, or a quantized diffusers folder.
        output: The artifact folder.
        progress: Called with a stage, what is done and the total.

    Returns:
        The published folder, and what is in it.

    Raises:
        UserError: An input is invalid, or no text encoder is quantized to 4 bits.
    """
    export = open_export(source, output, COMPRESSED_TENSORS)
    pipeline = export.pipeline
    encoders = {name: weights for name, weights in _open_text_encoders(pipeline).items() if weights.has_int4}
    export.require_int4(encoders.values(), "text encoder with INT4 weights")

    def write(folder: Path) -> dict[str, ComponentRecord]:
        for tokenizer in pipeline.list_tokenizer_folders():
            shutil.copytree(tokenizer, folder / tokenizer.name)
        return {name: _write_component(name, weights, folder / name, progress) for name, weights in encoders.items()}

    return export.publish(write, ("safetensors",), progress)


def _open_text_encoders(pipeline: SourcePipeline) -> dict[str, WeightReader]:
    names = [component.name for component in pipeline.family.components if component.role == "text_encoder"]
    checkpoints = {name: pipeline.open_checkpoint(name) for name in names if (pipeline.folder / name).is_dir()}
    return {name: WeightReader(checkpoint, checkpoint.load_config()) for name, checkpoint in checkpoints.items()}


def _write_component(name: str, weights: WeightReader, folder: Path, progress: Progress) -> ComponentRecord:
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
