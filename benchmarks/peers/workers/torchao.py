"""torchao: int4 weight-only with `quantize_`, with its public config or its CPU prototype, optionally with AWQ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torchao.prototype.awq import AWQConfig
from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
from torchao.quantization import Int4WeightOnlyConfig, IntxWeightOnlyConfig, PerGroup, quantize_

from .job import QuantizeJob
from .layers import DequantizedLayer, count_bits, iter_linears, run_calibration

PACKAGE = "torchao"
INT4 = torch.int4  # type: ignore[attr-defined]  # its stubs lack the small integers


def quantize(pipeline: Any, job: QuantizeJob) -> None:
    config = _make_config(job.options)
    if job.options.get("awq"):
        _apply(pipeline, job, AWQConfig(config, step="prepare"))
        run_calibration(pipeline, job)
        config = AWQConfig(config, step="convert")
    _apply(pipeline, job, config)


def read(pipeline: Any, job: QuantizeJob, _: None) -> Iterator[tuple[str, DequantizedLayer]]:
    for name, module in iter_linears(pipeline, job):
        weight: Any = module.weight
        yield name, DequantizedLayer(_dequantize(weight), count_bits(*_list_tensors(weight)))


def _make_config(options: dict[str, Any]) -> Any:
    size = options["group_size"]
    if options["config"] == "public":
        return Int4WeightOnlyConfig(group_size=size)
    if options["config"] == "intx":
        return IntxWeightOnlyConfig(weight_dtype=INT4, granularity=PerGroup(size))
    return PrototypeInt4WeightOnlyConfig(group_size=size, int4_choose_qparams_algorithm=options["algorithm"])


def _apply(pipeline: Any, job: QuantizeJob, config: Any) -> None:
    for component, names in job.layers.items():
        quantize_(getattr(pipeline, component), config, lambda _, name, chosen=frozenset(names): name in chosen)


def _list_tensors(weight: Any) -> list[Tensor]:
    """Returns the plain tensors of a quantized weight."""
    names = [*weight.tensor_data_names, *getattr(weight, "optional_tensor_data_names", [])]
    return [part for name in names if (part := getattr(weight, name, None)) is not None]


def _dequantize(weight: Any) -> Tensor:
    """Returns the weight (out, in). Where only the kernel can read the packing, it is applied to the identity."""
    if not hasattr(weight, "scale_and_zero"):
        dequantized: Tensor = weight.dequantize()
        return dequantized
    size: int = weight.block_size[1]
    scales, zeros = weight.scale_and_zero.float().unbind(-1)  # (in / size, out)
    unit = torch.stack([torch.ones_like(scales), torch.zeros_like(zeros)], -1).bfloat16()
    identity = torch.eye(weight.shape[1], dtype=torch.bfloat16)
    codes = torch.ops.aten._weight_int4pack_mm_for_cpu(identity, weight.qdata, size, unit).float()  # (in, out)
    columns = codes * scales.repeat_interleave(size, 0) + zeros.repeat_interleave(size, 0)
    if weight.act_pre_scale is not None:  # AWQ scales the layer's input at run time
        columns = columns * weight.act_pre_scale.float().reshape(-1, 1)
    rows: Tensor = columns.T
    return rows
