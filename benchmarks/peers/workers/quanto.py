"""optimum-quanto: qint4 weights, quantized and frozen in place; it chooses groups of 128 where they fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from optimum import quanto

from .job import Job
from .layers import Layer, bits_of, linears

PACKAGE = "optimum-quanto"


def quantize(pipeline: Any, job: Job) -> None:
    for component, names in job.layers.items():
        model = getattr(pipeline, component)
        quanto.quantize(model, weights=quanto.qint4, include=list(names))
        quanto.freeze(model)


def read(pipeline: Any, job: Job, _: None) -> Iterator[tuple[str, Layer]]:
    for name, module in linears(pipeline, job):
        weight: Any = module.weight
        stored: dict[str, Any] = {}
        weight.save_to_state_dict(stored, "", False)
        yield name, Layer(weight.dequantize(), bits_of(*stored.values()))
