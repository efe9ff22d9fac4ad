"""Registers the loader: after `import edgepress.loading`, diffusers and transformers read pressed components.

A pressed component's config.json says `quantization_config: {quant_method: awq, ...}`. Its linears are replaced by
`Int4Linear`, and the embeddings that an extra key `embeddings` names by `Int8Embedding`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import torch
from diffusers.quantizers import auto as diffusers_auto
from diffusers.quantizers.base import DiffusersQuantizer
from diffusers.quantizers.quantization_config import QuantizationConfigMixin
from torch import Tensor, nn
from transformers.quantizers import auto as transformers_auto
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import AwqConfig as StockAwqConfig

from . import products
from .int4 import AwqTensors
from .int8 import Int8Rows, dequantize_rows

UNREADABLE = "only 4 bits in the gemm layout can be read, not {} bits in {!r}"


class Method(StrEnum):
    """diffusers asks a quantization method for its `.value`."""

    AWQ = "awq"


class Packed(nn.Module):
    """A module whose scales stay as they are stored when the model around it is cast: `model.to(torch.bfloat16)`."""

    scales: Tensor

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Packed:
        """Hides the scales behind integers, which no cast touches, while they move to another device."""
        stored = self.scales.dtype
        self.scales = self.scales.view(torch.int16)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.scales = self.scales.view(stored)
        return self


class Int4Linear(Packed):
    """A linear layer whose weight is stored in AutoAWQ's GEMM layout.

    The buffers are what the file holds, and on a CPU nothing else stays in memory. On CUDA, a product with few rows
    leaves tinygemm's packing beside them.
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
        self._tinygemm: tuple[AwqTensors, tuple[Tensor, Tensor]] | None = None

    @property
    def packed(self) -> AwqTensors:
        """The stored weight."""
        return AwqTensors(self.qweight, self.qzeros, self.scales)

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weight (out, in)."""
        return products.dequantized(self.packed, dtype)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, self.in_features)
        if products.cpu_kernel_takes(rows, self.packed):
            out = products.multiply_int4(rows, self.packed)
        elif products.tinygemm_takes(rows, self.packed):
            out = products.multiply_tinygemm(rows, *self._for_tinygemm(), self.group_size)
        else:
            out = products.multiply_dequantized(rows, self.packed)
        out = out.reshape(*x.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias.to(x.dtype)

    def _for_tinygemm(self) -> tuple[Tensor, Tensor]:
        """Tinygemm's operands, packed again when other tensors have taken the place of those that were packed."""
        if self._tinygemm is None or any(a is not b for a, b in zip(self._tinygemm[0], self.packed, strict=True)):
            self._tinygemm = self.packed, products.pack_for_tinygemm(self.packed)
        return self._tinygemm[1]

    def _load_from_state_dict(self, *args: Any) -> None:
        """Forgets the packing: new values may be written into the same tensors."""
        self._tinygemm = None
        super()._load_from_state_dict(*args)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, group_size={self.group_size}"


class Int8Embedding(Packed):
    """An embedding whose rows are stored in 8 bits (`int8.Int8Rows`); those asked for come back in `dtype`."""

    codes: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim, self.dtype = num_embeddings, embedding_dim, dtype
        self.register_buffer("codes", torch.zeros(num_embeddings, embedding_dim, dtype=torch.int8))
        self.register_buffer("scales", torch.zeros(num_embeddings, 1, dtype=torch.float16))

    def forward(self, ids: Tensor) -> Tensor:
        return dequantize_rows(Int8Rows(self.codes[ids], self.scales[ids])).to(self.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Packed:
        """Follows a cast of the model around it, as a floating-point weight would."""
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, dtype={self.dtype}"


def replace_modules(model: nn.Module, config: Any) -> None:
    """Puts packed modules without values where `quantization_config` says so, and leaves out what nobody reads."""
    drop(model, config.unread, config.dropped)
    with torch.device("meta"):
        replace_linears(model, config.group_size, config.modules_to_not_convert or [])
        replace_embeddings(model, config.embeddings)


def replace_linears(model: nn.Module, group_size: int, kept: list[str]) -> None:
    """Puts an `Int4Linear` in the place of every linear that `kept` does not name, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name not in kept:
            model.set_submodule(
                name, Int4Linear(module.in_features, module.out_features, group_size, module.bias is not None)
            )


def replace_embeddings(model: nn.Module, names: list[str]) -> None:
    """Puts an `Int8Embedding` in the place of every embedding named, in place.

    Raises:
        ValueError: a name is no plain embedding of the model; classes of their own do more than look up a row.
    """
    found = {name: module for name, module in model.named_modules() if type(module) is nn.Embedding}
    for name in names:
        if name not in found:
            raise ValueError(f"quantization_config: {name!r} is none of the model's embeddings, {list(found)}")
        old = found[name]
        model.set_submodule(name, Int8Embedding(old.num_embeddings, old.embedding_dim, old.weight.dtype))


def _readable(bits: int, version: str) -> bool:
    return bits == 4 and version.lower() == "gemm"


class AwqConfig(QuantizationConfigMixin):
    """`quantization_config` of a pressed diffusers component, in AutoAWQ's words and three more.

    embeddings: those in 8 bits. unread: blocks that compute what nobody reads; not stored. dropped: modules that nobody
    runs; not stored either.
    """

    def __init__(
        self,
        bits: int = 4,
        group_size: int = 128,
        zero_point: bool = True,
        version: str = "gemm",
        modules_to_not_convert: list[str] | None = None,
        embeddings: list[str] | None = None,
        unread: list[str] | None = None,
        dropped: list[str] | None = None,
        **_: Any,
    ) -> None:
        if not _readable(bits, version):
            raise ValueError(UNREADABLE.format(bits, version))
        self.quant_method = Method.AWQ
        self.bits, self.group_size, self.zero_point, self.version = bits, group_size, zero_point, version
        self.modules_to_not_convert = modules_to_not_convert or []
        self.embeddings, self.unread, self.dropped = embeddings or [], unread or [], dropped or []

    def to_diff_dict(self) -> dict[str, Any]:
        """What diffusers prints and saves of it."""
        return dict(self.to_dict())


class DiffusersAwqQuantizer(DiffusersQuantizer):
    """Reads pressed components of diffusers classes."""

    requires_calibration = True
    required_packages: list[str] = []  # noqa: RUF012  diffusers reads the class attribute

    def __init__(self, quantization_config: AwqConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._stored: dict[str, Tensor] = {}

    def maybe_update_state_dict(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Keeps the file's scales, which diffusers casts to the model's dtype before it hands them over."""
        self._stored |= {name: tensor for name, tensor in state_dict.items() if name.endswith(".scales")}
        return state_dict

    def _process_model_before_weight_loading(self, model: nn.Module, **_: Any) -> None:
        replace_modules(model, self.quantization_config)

    def _process_model_after_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        self._stored.clear()
        return model

    def check_if_quantized_param(self, model: nn.Module, _value: Tensor, param_name: str, *_: Any, **__: Any) -> bool:
        return isinstance(model.get_submodule(param_name.rpartition(".")[0]), Packed)

    def check_quantized_param_shape(self, param_name: str, current_param: Tensor, loaded_param: Tensor) -> bool:
        if current_param.shape != loaded_param.shape:
            raise ValueError(
                f"{param_name} is {tuple(loaded_param.shape)} in the file, where quantization_config means "
                f"{tuple(current_param.shape)}"
            )
        return True

    def create_quantized_param(
        self, model: nn.Module, param_value: Tensor, param_name: str, target_device: torch.device, *_: Any, **__: Any
    ) -> None:
        """Puts a stored tensor in its buffer, in the dtype of the file."""
        owner, buffer = param_name.rsplit(".", 1)
        stored = self._stored.pop(param_name, param_value)
        setattr(model.get_submodule(owner), buffer, stored.to(target_device))

    @property
    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False


class TransformersAwqConfig(StockAwqConfig):
    """transformers' own class, which would forget the keys `embeddings`, `unread` and `dropped`."""

    def __init__(
        self,
        *args: Any,
        embeddings: list[str] | None = None,
        unread: list[str] | None = None,
        dropped: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.embeddings, self.unread, self.dropped = embeddings or [], unread or [], dropped or []
        super().__init__(*args, **kwargs)


# transformers compares names of classes where a config comes with the call and with the model.
TransformersAwqConfig.__name__ = StockAwqConfig.__name__


class TransformersAwqQuantizer(HfQuantizer):
    """Reads pressed components of transformers classes without the CUDA packages that the stock AWQ loader asks for."""

    requires_calibration = True

    def validate_environment(self, *_: Any, **__: Any) -> None:
        config: Any = self.quantization_config
        if not _readable(config.bits, config.format):
            raise ValueError(UNREADABLE.format(config.bits, str(config.format)))

    def _process_model_before_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        replace_modules(model, self.quantization_config)
        return model

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False


diffusers_auto.AUTO_QUANTIZER_MAPPING[Method.AWQ.value] = DiffusersAwqQuantizer
diffusers_auto.AUTO_QUANTIZATION_CONFIG_MAPPING[Method.AWQ.value] = AwqConfig
transformers_auto.AUTO_QUANTIZER_MAPPING[Method.AWQ.value] = TransformersAwqQuantizer
transformers_auto.AUTO_QUANTIZATION_CONFIG_MAPPING[Method.AWQ.value] = TransformersAwqConfig


def drop(model: nn.Module, unread: Sequence[str], dropped: Sequence[str]) -> None:
    """Takes the weights out of modules, in place: unread blocks hand on their input, dropped ones refuse to run.

    They stay of their class, because transformers collects hidden states from blocks of that class.
    """
    for paths, forward in ((unread, _hand_on), (dropped, _refuse)):
        for path in paths:
            module = model.get_submodule(path)
            for name in list(dict(module.named_children())):
                delattr(module, name)
            module.forward = forward


def _hand_on(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _refuse(*_: Any, **__: Any) -> Tensor:
    raise NotImplementedError(
        "this part was not stored, since the pipeline never runs it; load the component from the original pipeline"
    )
