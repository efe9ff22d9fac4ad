"""A component weight by weight, in the form in which it is stored: as codes where it is quantized, else as floats."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...models.base.single_file import FileTensor
from ...numerics.affine import QParams, QuantizedWeight, dequantize
from ...numerics.awq_packing import AwqTensors, unpack_awq
from ...numerics.int8_rows import Int8Rows, dequantize_rows
from ...storage.checkpoint import Checkpoint
from ..graph.int4_operands import has_symmetric_zero_points
from ..graph.int8_operands import Int8Tensors, to_int8_operand

Weight = Tensor | QuantizedWeight | Int8Rows
AWQ_KINDS = AwqTensors._fields
EMBEDDING_KINDS = Int8Rows._fields
PACKED_DTYPE, CODES_PER_INT32 = "I32", 8  # of codes in 4 bits; those in 8 bits are U8


class WeightReader:
    """The weights of a component under the names that they have in the component's class.

    Blocks that quantization removed, since the pipeline never uses their output, are there as zeros: other programs
    would fill them with random numbers.

    Args:
        checkpoint: The component's weights.
        config: The component's config.json.
        solution: An alternative quantization. Modules that it contains are taken from it alone.

    Attributes:
        config: The config without how weights are stored.
    """

    def __init__(self, checkpoint: Checkpoint, config: Mapping[str, Any], solution: Checkpoint | None = None) -> None:
        self.config = {key: value for key, value in config.items() if key != "quantization_config"}
        solution_tensors = dict.fromkeys(solution.names(), solution) if solution else {}
        replaced = {_get_module(name) for name in solution_tensors}
        unchanged = {name: checkpoint for name in checkpoint.names() if _get_module(name) not in replaced}
        self._checkpoints = unchanged | solution_tensors
        modules = [name.removesuffix(".qweight") for name in self._checkpoints if name.endswith(".qweight")]
        self._int4_modules = {name for name in modules if self._get_dtype(f"{name}.qweight") == PACKED_DTYPE}
        self._weight_names = list(dict.fromkeys(filter(None, map(_get_weight_name, self._checkpoints))))
        quantization = config.get("quantization_config") or {}
        unused: list[str] = quantization.get("unused_blocks") or quantization.get("unread") or []
        self._templates = dict(self._find_templates(unused))

    @property
    def has_int4(self) -> bool:
        """Whether any weight has 4 bits."""
        return bool(self._int4_modules)

    @property
    def is_symmetric(self) -> bool:
        """Whether no zero point of a 4-bit weight differs from 8."""
        return all(has_symmetric_zero_points(self._load_tensor(f"{module}.qzeros")) for module in self._int4_modules)

    @property
    def float_dtype(self) -> torch.dtype:
        """The dtype of the component's floats: that of its config, or else of its first vector."""
        named = getattr(torch, str(self.config.get("dtype") or self.config.get("torch_dtype")), None)
        if isinstance(named, torch.dtype):
            return named
        vector = next((name for name in self._weight_names if name.endswith("norm.weight")), None)
        return self._load_tensor(vector).dtype if vector else torch.float32

    @property
    def num_weights(self) -> int:
        """The number of weights, those of removed blocks included; scales and zero points do not count."""
        return sum(map(self._count, self.names()))

    @property
    def group_sizes(self) -> dict[str, int]:
        """The number of inputs that share a scale, by 4-bit layer, those of removed blocks included."""
        layers = {name: _get_module(name) for name in self._weight_names if _get_module(name) in self._int4_modules}
        layers |= {name: layers[template] for name, template in self._templates.items() if template in layers}
        return {_get_module(name): self._read_group_size(module) for name, module in layers.items()}

    def names(self) -> list[str]:
        """The names of all weights, in the order of the file, those of removed blocks last."""
        return [*self._weight_names, *self._templates]

    def load(self, name: str) -> Weight:
        """Loads a weight in the form in which it is stored.

        Args:
            name: A name from `names`, such as `layers.0.attention.to_q.weight`.
        """
        if name in self._templates:
            return _zeros_like(self.load(self._templates[name]))
        module = _get_module(name)
        if (packed := self.load_packed(name)) is not None:
            return unpack_awq(packed)
        if f"{module}.qweight" in self._checkpoints and name.endswith(".weight"):
            tensors = Int8Tensors(*(self._load_tensor(f"{module}.{kind}") for kind in Int8Tensors._fields))
            codes = to_int8_operand(tensors, "qweight").T.contiguous()
            return Int8Rows(codes, tensors.scales.T.contiguous())
        if f"{module}.codes" in self._checkpoints:
            return Int8Rows(*(self._load_tensor(f"{module}.{kind}") for kind in EMBEDDING_KINDS))
        return self._load_tensor(name)

    def load_file_tensor(self, tensor: FileTensor) -> Weight:
        """Loads a tensor of a single file: the rows of its parts, one after another."""
        weight = stack_rows([self.load(part) for part in tensor.parts])
        return swap_halves(weight) if tensor.has_swapped_halves else weight

    def load_packed(self, name: str) -> AwqTensors | None:
        """Loads a 4-bit weight as AWQ's layout stores it, without unpacking it; None of any other."""
        module = _get_module(self._templates.get(name, name))
        if module not in self._int4_modules or not name.endswith(".weight"):
            return None
        packed = AwqTensors(*(self._load_tensor(f"{module}.{kind}") for kind in AWQ_KINDS))
        return packed if name not in self._templates else packed._replace(scales=torch.zeros_like(packed.scales))

    def _load_tensor(self, name: str) -> Tensor:
        return self._checkpoints[name].load_tensor(name)

    def _get_dtype(self, name: str) -> str:
        return self._checkpoints[name].dtype(name)

    def _get_shape(self, name: str) -> tuple[int, ...]:
        return self._checkpoints[name].shape(name)

    def _read_group_size(self, module: str) -> int:
        return self._get_shape(f"{module}.qweight")[0] // self._get_shape(f"{module}.scales")[0]

    def _count(self, name: str) -> int:
        name = self._templates.get(name, name)
        module = _get_module(name)
        stored = next(key for key in (name, f"{module}.qweight", f"{module}.codes") if key in self._checkpoints)
        per_value = CODES_PER_INT32 if module in self._int4_modules and stored != name else 1
        return math.prod(self._get_shape(stored)) * per_value

    def _find_templates(self, unused_blocks: list[str]) -> list[tuple[str, str]]:
        """The names of weights of removed blocks, each with that of the same weight in a block that is there."""
        templates: list[tuple[str, str]] = []
        for block in unused_blocks:
            first = f"{block.rpartition('.')[0]}.0."
            names = (name for name in self._weight_names if name.startswith(first))
            templates += [(f"{block}.{name.removeprefix(first)}", name) for name in names]
        return templates


def to_float(weight: Weight) -> Tensor:
    """The values of a weight; float32 unless it is stored as floats."""
    if isinstance(weight, QuantizedWeight):
        return dequantize(weight)
    return dequantize_rows(weight) if isinstance(weight, Int8Rows) else weight


def stack_rows(weights: list[Weight]) -> Weight:
    """Stacks the rows of weights of one input width. Where they are not all quantized alike, the result is floats."""
    if len(weights) == 1:
        return weights[0]
    if all(isinstance(weight, Int8Rows) for weight in weights):
        return Int8Rows(*(torch.cat(tensors) for tensors in zip(*weights, strict=True)))
    quantized = [weight for weight in weights if isinstance(weight, QuantizedWeight)]
    if len(quantized) == len(weights) and len({weight.qparams.scales.shape[1] for weight in quantized}) == 1:
        scales = torch.cat([weight.qparams.scales for weight in quantized])
        zero_points = torch.cat([weight.qparams.zero_points for weight in quantized])
        return QuantizedWeight(torch.cat([weight.codes for weight in quantized]), QParams(scales, zero_points))
    floats = [to_float(weight) for weight in weights]
    dtypes = {tensor.dtype for tensor in floats}
    return torch.cat(floats if len(dtypes) == 1 else [tensor.float() for tensor in floats])


def swap_halves(weight: Weight) -> Weight:
    """Puts the second half of the rows of a weight first."""

    def swap(tensor: Tensor) -> Tensor:
        return tensor.roll(tensor.shape[0] // 2, 0)

    if isinstance(weight, QuantizedWeight):
        scales, zero_points, *_ = weight.qparams
        return QuantizedWeight(swap(weight.codes), QParams(swap(scales), swap(zero_points)))
    return Int8Rows(*map(swap, weight)) if isinstance(weight, Int8Rows) else swap(weight)


def _zeros_like(weight: Weight) -> Weight:
    if isinstance(weight, QuantizedWeight):
        qparams = weight.qparams._replace(scales=torch.zeros_like(weight.qparams.scales))
        return QuantizedWeight(torch.zeros_like(weight.codes), qparams)
    if isinstance(weight, Int8Rows):
        return Int8Rows(*map(torch.zeros_like, weight))
    return torch.zeros_like(weight)


def _get_module(name: str) -> str:
    return name.rpartition(".")[0]


def _get_weight_name(name: str) -> str:
    """The weight that a stored tensor is part of; empty for scales and zero points, which follow from the codes."""
    module, _, kind = name.rpartition(".")
    if kind in ("qweight", "codes"):
        return f"{module}.weight"
    return "" if kind in ("qzeros", "scales", "input_scale") else name
