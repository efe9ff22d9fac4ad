"""GGUF: blocks of 32 from the `gguf` package.

diffusers reads GGUF files for some transformers only, and dequantizes them when they are used, to the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from gguf import GGMLQuantizationType, quants

from .job import QuantizeJob
from .layers import DequantizedLayer, iter_linears

PACKAGE = "gguf"


def quantize(pipeline: Any, job: QuantizeJob) -> dict[str, Any]:
    kind = GGMLQuantizationType[job.options["kind"]]
    return {
        name: quants.quantize(module.weight.detach().float().numpy(), kind)
        for name, module in iter_linears(pipeline, job)
    }


def read(_: Any, job: QuantizeJob, state: dict[str, Any]) -> Iterator[tuple[str, DequantizedLayer]]:
    kind = GGMLQuantizationType[job.options["kind"]]
    for name, packed in state.items():
        yield name, DequantizedLayer(torch.from_numpy(quants.dequantize(packed, kind)), 8 * packed.nbytes)
