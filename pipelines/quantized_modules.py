"""Modules that compute with quantized weights, and what puts them into a model before its weights are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..numerics import int4_matmul
from ..numerics.awq_packing import AwqTensors
from ..numerics.int8_rows import Int8Rows, dequantize_rows
from ..numerics.quant_spec import require_group_size
from .lora_adapters import enable_lora_adapters

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


class FixedScaleModule(nn.Module):
    """A module whose scales keep their dtype when the model is cast, as by `model.to(torch.bfloat16)`."""

    scales: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FixedScaleModule:
        """Applies `fn` to the scales viewed as integers, so that they move to another device but are not cast."""
        dtype = self.scales.dtype
        self.scales = self.scales.view(torch.int16)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.scales = self.scales.view(dtype)
        return self


class Int4Linear(FixedScaleModule):
    """A linear layer with 4-bit weights in AutoAWQ's GEMM layout.

    The buffers are those of the file. A CPU needs no other memory; on CUDA, tinygemm's packing of the weight is cached
    once it has been used.

    Attributes:
        qweight: Packed codes, (in_features, out_features / 8) int32.
        qzeros: Packed zero points, (groups, out_features / 8) int32.
        scales: Scales, (groups, out_features) float16.
        bias: Bias, (out_features,), or None.
    """

    qweight: Tensor
    qzeros: Tensor
    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, group_size: int, bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features, self.group_size = in_features, out_features, group_size
        groups = in_features // group_size
        self.register_buffer("qweight", torch.zeros(in_features, out_features // 8, dtype=torch.int32))
        self.register_buffer("qzeros", torch.zeros(groups, out_features // 8, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(groups, out_features, dtype=torch.float16))
        self.register_buffer("bias", torch.zeros(out_features) if bias else None)
        self._tinygemm_cache: tuple[AwqTensors, tuple[Tensor, Tensor]] | None = None

    @property
    def awq_tensors(self) -> AwqTensors:
        """The stored tensors of the weight."""
        return AwqTensors(self.qweight, self.qzeros, self.scales)

    @property
    def weight(self) -> Tensor:
        """The packed codes as int8, for models that ask for a weight's dtype, or initialize it before they load it.

        The dtype tells them to cast nothing, and the mark that transformers sets tells them to initialize nothing.
        """
        codes: Any = self.qweight.view(torch.int8)
        codes._is_hf_initialized = True
        weight: Tensor = codes
        return weight

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The dequantized weight, (out_features, in_features)."""
        return int4_matmul.dequantize_awq(self.awq_tensors, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies (..., in_features) by the weight, with the fastest kernel that supports the operands."""
        rows = x.reshape(-1, self.in_features)
        if int4_matmul.cpu_int4_supported(rows, self.awq_tensors):
            out = int4_matmul.int4_matmul_cpu(rows, self.awq_tensors)
        elif int4_matmul.tinygemm_supported(rows, self.awq_tensors):
            out = int4_matmul.int4_matmul_cuda(rows, *self._get_tinygemm_operands(), self.group_size)
        else:
            out = int4_matmul.dequant_matmul(rows, self.awq_tensors)
        out = out.reshape(*x.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias.to(x.dtype)

    def _get_tinygemm_operands(self) -> tuple[Tensor, Tensor]:
        """Tinygemm's operands, packed again if the stored tensors were replaced."""
        if self._tinygemm_cache is None or any(
            a is not b for a, b in zip(self._tinygemm_cache[0], self.awq_tensors, strict=True)
        ):
            self._tinygemm_cache = self.awq_tensors, int4_matmul.pack_for_tinygemm(self.awq_tensors)
        return self._tinygemm_cache[1]

    def _load_from_state_dict(self, *args: Any) -> None:
        """Drops the cached packing, since new values may be written into the same tensors."""
        self._tinygemm_cache = None
        super()._load_from_state_dict(*args)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, group_size={self.group_size}"


class RowScaledLinear(FixedScaleModule):
    """A linear layer with 8-bit weights and one scale for each output, without zero points.

    Attributes:
        qweight: Codes plus 128, (in_features, out_features) uint8.
        qzeros: Zero points, all 128, (1, out_features) uint8.
        scales: Scales, (1, out_features) float16.
        bias: Bias, (out_features,), or None.
    """

    qweight: Tensor
    qzeros: Tensor
    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("qweight", torch.zeros(in_features, out_features, dtype=torch.uint8))
        self.register_buffer("qzeros", torch.zeros(1, out_features, dtype=torch.uint8))
        self.register_buffer("scales", torch.zeros(1, out_features, dtype=torch.float16))
        self.register_buffer("bias", torch.zeros(out_features) if bias else None)

    @property
    def weight(self) -> Tensor:
        """The codes, for models that ask for a weight's dtype; see `Int4Linear.weight`."""
        codes: Any = self.qweight.view(torch.int8)
        codes._is_hf_initialized = True
        weight: Tensor = codes
        return weight

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The dequantized weight, (out_features, in_features)."""
        codes = self.qweight.to(dtype) - self.qzeros.to(dtype)  # at most 8 bits, which every dtype holds exactly
        return (codes * self.scales.to(dtype)).T

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies (..., in_features) by the weight."""
        return nn.functional.linear(x, self.dequantize(x.dtype), None if self.bias is None else self.bias.to(x.dtype))

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}"


class Int8Embedding(FixedScaleModule):
    """An embedding with 8-bit rows, each with a scale of its own.

    Attributes:
        codes: Codes, (num_embeddings, embedding_dim) int8.
        scales: Scales, (num_embeddings, 1) float16.
        dtype: The dtype of the output.
    """

    codes: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.dtype = num_embeddings, embedding_dim, dtype
        self.register_buffer("codes", torch.zeros(num_embeddings, embedding_dim, dtype=torch.int8))
        self.register_buffer("scales", torch.zeros(num_embeddings, 1, dtype=torch.float16))

    def forward(self, ids: Tensor) -> Tensor:
        """The dequantized rows of token ids: (...) to (..., embedding_dim)."""
        return dequantize_rows(Int8Rows(self.codes[ids], self.scales[ids])).to(self.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FixedScaleModule:
        """Changes `dtype` when the model is cast, as a floating-point weight would change."""
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, dtype={self.dtype}"


class Int8Conv(FixedScaleModule):
    """A convolution with 8-bit weights and a scale for each output channel. It computes in the dtype of its input.

    Attributes:
        codes: Codes, (out_channels, in_channels, ...) int8, with an axis for each dimension of the kernel.
        scales: Scales, (out_channels, 1, ...) float16.
        bias: Bias, (out_channels,), or None.
    """

    codes: Tensor
    bias: Tensor | None

    def __init__(self, conv: Convolution) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = conv.in_channels, conv.out_channels, conv.groups
        self.kernel_size, self.stride = conv.kernel_size, conv.stride
        self.padding, self.dilation = conv.padding, conv.dilation
        shape = conv.weight.shape
        self.register_buffer("codes", torch.zeros(shape, dtype=torch.int8))
        self.register_buffer("scales", torch.zeros(shape[0], *(1 for _ in shape[1:]), dtype=torch.float16))
        self.register_buffer("bias", None if conv.bias is None else torch.zeros(self.out_channels))

    @property
    def weight(self) -> Tensor:
        """The codes, for libraries that ask for a weight's device or number of dimensions."""
        return self.codes

    def forward(self, x: Tensor) -> Tensor:
        """Convolves (batch, in_channels, ...) with the dequantized weight."""
        weight = dequantize_rows(Int8Rows(self.codes, self.scales)).to(x.dtype)
        return self.convolve(x, weight, None if self.bias is None else self.bias.to(x.dtype))

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolves with another weight, in the steps and the padding of this layer."""
        convolve: Any = (F.conv1d, F.conv2d, F.conv3d)[len(self.kernel_size) - 1]
        out: Tensor = convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
        return out

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"


def replace_modules(model: nn.Module, config: Any, folder: Path | None = None) -> None:
    """Prepares a model, in place, for loading quantized weights.

    Args:
        model: The model without weights.
        config: Its `quantization_config`: an `AwqConfig` or a `TransformersAwqConfig`.
        folder: Where it is loaded from.
    """
    strip_modules(model, config.unused_blocks, config.unused_modules)
    with torch.device("meta"):
        replace_linears(model, config.group_size, config.modules_to_not_convert or [], config.extra_config)
        replace_embeddings(model, config.embeddings)
        replace_convolutions(model, config.convolutions)
    enable_lora_adapters(model, config.rescaled_linears, folder)


def replace_linears(
    model: nn.Module,
    group_size: int,
    skip: Sequence[str],
    extra_config: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
) -> None:
    """Replaces all linear layers by an `Int4Linear` or an `RowScaledLinear`, in place, but those named in `skip`.

    Args:
        model: The model.
        group_size: Number of input channels that share a scale.
        skip: Linears that are not quantized.
        extra_config: `bits` and `group_size` of linears that have others, by name.

    Raises:
        ValueError: No group size fits the input width of one.
    """
    skipped = frozenset(skip)
    for name, module in list(model.named_modules()):
        if not isinstance(module, nn.Linear) or name in skipped:
            continue
        layout, has_bias = extra_config.get(name, {}), module.bias is not None
        linear: FixedScaleModule
        if layout.get("bits") == 8:
            linear = RowScaledLinear(module.in_features, module.out_features, has_bias)
        else:
            size = require_group_size(layout.get("group_size", group_size), module.in_features)
            linear = Int4Linear(module.in_features, module.out_features, size, has_bias)
        model.set_submodule(name, linear)


def replace_embeddings(model: nn.Module, names: Sequence[str]) -> None:
    """Replaces the named embeddings by an `Int8Embedding`, in place.

    Raises:
        ValueError: A name is not a plain `nn.Embedding` of the model. Subclasses do more than look up rows.
    """
    embeddings = {name: module for name, module in model.named_modules() if type(module) is nn.Embedding}
    for name in names:
        if name not in embeddings:
            raise ValueError(
                f"quantization_config: {name!r} is not an embedding of the model; it has {list(embeddings)}"
            )
        embedding = embeddings[name]
        replacement = Int8Embedding(embedding.num_embeddings, embedding.embedding_dim, embedding.weight.dtype)
        model.set_submodule(name, replacement)


def replace_convolutions(model: nn.Module, names: Sequence[str]) -> None:
    """Replaces the named convolutions by an `Int8Conv`, in place.

    Raises:
        ValueError: A name is not a plain convolution of the model.
    """
    convolutions = {name: module for name, module in model.named_modules() if type(module) in CONVOLUTIONS}
    for name in names:
        if name not in convolutions:
            raise ValueError(f"quantization_config: {name!r} is not a convolution of the model")
        model.set_submodule(name, Int8Conv(convolutions[name]))


def strip_modules(model: nn.Module, unused_blocks: Sequence[str], unused_modules: Sequence[str]) -> None:
    """Removes the weights of modules that are not stored, in place.

    The modules keep their class, because transformers collects the hidden states of blocks by class.

    Args:
        model: The model.
        unused_blocks: Blocks whose output is never used; they pass their input on.
        unused_modules: Modules that are never run; calling them raises NotImplementedError.
    """
    for paths, forward in ((unused_blocks, _identity_forward), (unused_modules, _raise_stripped)):
        for path in paths:
            module = model.get_submodule(path)
            for name in list(dict(module.named_children())):
                delattr(module, name)
            module.forward = forward


def _identity_forward(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _raise_stripped(*_: Any, **__: Any) -> Tensor:
    raise NotImplementedError(
        "this module was removed during quantization, since the pipeline never runs it. Load the component from the "
        "original pipeline"
    )
