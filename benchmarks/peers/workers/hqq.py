"""HQQ: half-quadratic search for zero points, with the quantizer of `HQQLinear`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from hqq.core.quantize import Quantizer

from .job import QuantizeJob
from .layers import DequantizedLayer, count_bits, iter_linears

PACKAGE = "hqq"


def quantize(pipeline: Any, job: QuantizeJob) -> dict[str, Any]:
    state = {}
    for name, module in iter_linears(pipeline, job):
        state[name] = Quantizer.quantize(
            module.weight.detach(), nbits=4, axis=1, device="cpu", compute_dtype=torch.float16, **job.options
        )
    return state


def read(_: Any, __: QuantizeJob, state: dict[str, Any]) -> Iterator[tuple[str, DequantizedLayer]]:
    for name, (packed, meta) in state.items():
        grid = {key: meta[key].half() for key in ("scale", "zero")}  # as `HQQLinear` stores them in half precision
        weight = Quantizer.dequantize(packed, meta | {key: part.float() for key, part in grid.items()})
        yield name, DequantizedLayer(weight, count_bits(packed, *grid.values()))
