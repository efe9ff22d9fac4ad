"""GPTQModel: its GPTQ, on the inputs that each layer gets in the reference. It does not support diffusion pipelines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from gptqmodel import QuantizeConfig
from gptqmodel.quantization.gptq import GPTQ

from .job import QuantizeJob
from .layers import DequantizedLayer, count_bits, count_grouped_bits, iter_linears, observe_inputs, run_calibration

PACKAGE = "gptqmodel"


def quantize(pipeline: Any, job: QuantizeJob) -> dict[str, Any]:
    """Returns, by layer, the dequantized weight, the scales, and the group index, which its files store as int32."""
    size = job.options["group_size"]
    solvers = {
        name: GPTQ(module, QuantizeConfig(bits=4, group_size=size)) for name, module in iter_linears(pipeline, job)
    }
    for solver in solvers.values():
        solver.quantizer.configure(perchannel=True)
    watch = {name: _make_collector(solver) for name, solver in solvers.items()}
    with observe_inputs(pipeline, job, watch):
        run_calibration(pipeline, job)
    return {name: _solve(solver) for name, solver in solvers.items()}


def read(_: Any, __: QuantizeJob, state: dict[str, Any]) -> Iterator[tuple[str, DequantizedLayer]]:
    for name, (weight, scale, order) in state.items():
        yield (
            name,
            DequantizedLayer(weight, count_grouped_bits(weight.numel(), scale.numel()) + count_bits(order.int())),
        )


def _make_collector(solver: Any) -> Any:
    return lambda rows: solver.add_batch(rows[None], None)


def _solve(solver: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weight, scale, _, order, *_ = solver.quantize()
    return weight, scale, order
