"""GPTQModel: its GPTQ, given layer by layer the inputs of the reference; it knows no diffusion pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from gptqmodel import QuantizeConfig
from gptqmodel.quantization.gptq import GPTQ

from .job import Job
from .layers import Layer, bits_of, grouped_bits, linears, paint, watching

PACKAGE = "gptqmodel"


def quantize(pipeline: Any, job: Job) -> dict[str, Any]:
    """By layer, the dequantized weight, the scales, and the order of the groups, which its files hold as int32."""
    size = job.options["group_size"]
    solvers = {name: GPTQ(module, QuantizeConfig(bits=4, group_size=size)) for name, module in linears(pipeline, job)}
    for solver in solvers.values():
        solver.quantizer.configure(perchannel=True)
    watch = {name: _added(solver) for name, solver in solvers.items()}
    with watching(pipeline, job, watch):
        paint(pipeline, job)
    return {name: _solved(solver) for name, solver in solvers.items()}


def read(_: Any, __: Job, found: dict[str, Any]) -> Iterator[tuple[str, Layer]]:
    for name, (weight, scale, order) in found.items():
        yield name, Layer(weight, grouped_bits(weight.numel(), scale.numel()) + bits_of(order.int()))


def _added(solver: Any) -> Any:
    return lambda rows: solver.add_batch(rows[None], None)


def _solved(solver: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weight, scale, _, order, *_ = solver.quantize()
    return weight, scale, order
