"""HQQ: half-quadratic search for zero points, by `HQQLinear`'s quantizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from hqq.core.quantize import Quantizer

from .job import Job
from .layers import Layer, bits_of, linears

PACKAGE = "hqq"


def quantize(pipeline: Any, job: Job) -> dict[str, Any]:
    found = {}
    for name, module in linears(pipeline, job):
        found[name] = Quantizer.quantize(
            module.weight.detach(), nbits=4, axis=1, device="cpu", compute_dtype=torch.float16, **job.options
        )
    return found


def read(_: Any, __: Job, found: dict[str, Any]) -> Iterator[tuple[str, Layer]]:
    for name, (packed, meta) in found.items():
        grid = {key: meta[key].half() for key in ("scale", "zero")}  # as `HQQLinear` keeps them in half precision
        weight = Quantizer.dequantize(packed, meta | {key: part.float() for key, part in grid.items()})
        yield name, Layer(weight, bits_of(packed, *grid.values()))
