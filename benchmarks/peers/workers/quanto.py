"""optimum-quanto: qint4 weights, quantized and frozen in place; it chooses groups of 128 where they fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from optimum import quanto

from .job import QuantizeJob
from .layers import DequantizedLayer, count_bits, iter_linears

PACKAGE = "optimum-quanto"


def quantize(pipeline: Any, job: QuantizeJob) -> None:
    for component, names in job.layers.items():
        model = getattr(pipeline, component)
        quanto.quantize(model, weights=quanto.qint4, include=list(names))
        quanto.freeze(model)


def read(pipeline: Any, job: QuantizeJob, _: None) -> Iterator[tuple[str, DequantizedLayer]]:
    for name, module in iter_linears(pipeline, job):
        weight: Any = module.weight
        stored: dict[str, Any] = {}
        weight.save_to_state_dict(stored, "", False)
        yield name, DequantizedLayer(weight.dequantize(), count_bits(*stored.values()))
