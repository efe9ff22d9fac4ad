"""The files of quantized blocks in the workspace: tensors by scheme, and the statistics of layers as metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..storage.checkpoint import write_tensors
from .solver.block import BlockResult
from .solver.layer_stats import LayerStats


def save_block(results: Mapping[str, BlockResult], overflows: Sequence[str], file: Path) -> None:
    """Stores a block: its tensors, named `scheme:name`, and as metadata its layers' statistics and overflows."""
    tensors = {
        f"{name}:{key}": tensor
        for name, result in results.items()
        for key, tensor in (result.tensors | result.rescaling).items()
    }
    layers = {name: [_describe(layer) for layer in result.layers] for name, result in results.items()}
    write_tensors(tensors, file, json.dumps({"layers": layers, "overflows": list(overflows)}))


def _describe(layer: LayerStats) -> dict[str, Any]:
    """The statistics of a layer; `is_rescaled` is only there where it is true."""
    return {key: value for key, value in asdict(layer).items() if key != "is_rescaled" or value}


def collect_layers(blocks: Sequence[dict[str, Any]], scheme: str) -> list[dict[str, Any]]:
    """Returns the statistics of the layers of all blocks with a scheme, from the files' metadata."""
    return [layer for block in blocks for layer in block["layers"][scheme]]


def collect_overflows(blocks: Sequence[dict[str, Any]]) -> list[str]:
    """Names of activations that exceed float16's range, once each: those of a block inside another one are in both."""
    return list(dict.fromkeys(name for block in blocks for name in block["overflows"]))
