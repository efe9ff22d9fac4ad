"""bitsandbytes: NF4 in blocks of 64, by the functions behind `Linear4bit`; optionally its scales quantized again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bitsandbytes import functional

from .job import Job
from .layers import Layer, bits_of, linears

PACKAGE = "bitsandbytes"


def quantize(pipeline: Any, job: Job) -> dict[str, Any]:
    return {name: functional.quantize_4bit(module.weight, **job.options) for name, module in linears(pipeline, job)}


def read(_: Any, __: Job, found: dict[str, Any]) -> Iterator[tuple[str, Layer]]:
    for name, (packed, state) in found.items():
        stored = [packed, *state.as_dict(packed=True).values()]
        yield name, Layer(functional.dequantize_4bit(packed, state), bits_of(*stored))
