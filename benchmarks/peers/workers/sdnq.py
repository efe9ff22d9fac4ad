"""SDNQ: uint4 weights, plain, or with a Hadamard rotation or a low-rank part of 16 bits beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sdnq.quantizer import sdnq_post_load_quant
from torch import nn

from .job import Job
from .layers import Layer, bits_of, linears

PACKAGE = "sdnq"


def quantize(pipeline: Any, job: Job) -> list[Any]:
    """The layers alone stand in the model that is handed over, so that the tool's own skip lists have no say."""
    model = nn.ModuleList(module for _, module in linears(pipeline, job))
    sdnq_post_load_quant(model, weights_dtype="uint4", add_skip_keys=False, **job.options)
    return list(model)


def read(pipeline: Any, job: Job, found: list[Any]) -> Iterator[tuple[str, Layer]]:
    for (name, _), module in zip(linears(pipeline, job), found, strict=True):
        parts = {key: tensor for key, tensor in _parts(module).items() if tensor is not None}
        weight = module.sdnq_dequantizer(**parts, skip_compile=True)
        yield name, Layer(weight, bits_of(*parts.values()))


def _parts(module: Any) -> dict[str, Any]:
    """What stands for the weight, by the names under which the dequantizer wants it."""
    names = ("weight", "scale", "scale_2", "scale_zero_point", "zero_point", "zero_point_scale", "zero_point_2")
    return {name: getattr(module, name, None) for name in (*names, "svd_up", "svd_down")}
