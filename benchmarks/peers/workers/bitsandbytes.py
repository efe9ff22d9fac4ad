"""bitsandbytes: NF4 in blocks of 64, with the functions behind `Linear4bit`, optionally with quantized scales."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bitsandbytes import functional

from .job import QuantizeJob
from .layers import DequantizedLayer, count_bits, iter_linears

PACKAGE = "bitsandbytes"


def quantize(pipeline: Any, job: QuantizeJob) -> dict[str, Any]:
    return {
        name: functional.quantize_4bit(module.weight, **job.options) for name, module in iter_linears(pipeline, job)
    }


def read(_: Any, __: QuantizeJob, state: dict[str, Any]) -> Iterator[tuple[str, DequantizedLayer]]:
    for name, (packed, quant_state) in state.items():
        stored = [packed, *quant_state.as_dict(packed=True).values()]
        yield name, DequantizedLayer(functional.dequantize_4bit(packed, quant_state), count_bits(*stored))
