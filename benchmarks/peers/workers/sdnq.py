"""SDNQ: uint4 weights, plain, or with a Hadamard rotation, or with a low-rank part in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sdnq.quantizer import sdnq_post_load_quant
from torch import nn

from .job import QuantizeJob
from .layers import DequantizedLayer, count_bits, iter_linears

PACKAGE = "sdnq"


def quantize(pipeline: Any, job: QuantizeJob) -> list[Any]:
    """The tool gets a model of these layers only, so that its own skip lists do not apply."""
    model = nn.ModuleList(module for _, module in iter_linears(pipeline, job))
    sdnq_post_load_quant(model, weights_dtype="uint4", add_skip_keys=False, **job.options)
    return list(model)


def read(pipeline: Any, job: QuantizeJob, state: list[Any]) -> Iterator[tuple[str, DequantizedLayer]]:
    for (name, _), module in zip(iter_linears(pipeline, job), state, strict=True):
        parts = {key: tensor for key, tensor in _get_dequantizer_inputs(module).items() if tensor is not None}
        weight = module.sdnq_dequantizer(**parts, skip_compile=True)
        yield name, DequantizedLayer(weight, count_bits(*parts.values()))


def _get_dequantizer_inputs(module: Any) -> dict[str, Any]:
    """Returns the tensors of a weight under the names of the dequantizer's arguments."""
    names = ("weight", "scale", "scale_2", "scale_zero_point", "zero_point", "zero_point_scale", "zero_point_2")
    return {name: getattr(module, name, None) for name in (*names, "svd_up", "svd_down")}
