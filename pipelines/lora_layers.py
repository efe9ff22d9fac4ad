"""PEFT's layers for LoRA adapters beside weights in 4 or 8 bits. Importing this module imports PEFT."""

from __future__ import annotations

from collections.abc import Iterable
from functools import wraps
from typing import Any, cast

import torch
import torch.nn.functional as F
from peft import LoraConfig  # type: ignore[import, unused-ignore]
from peft.tuners.lora import LoraLayer  # type: ignore[import, unused-ignore]
from torch import Tensor, nn

from ..common.errors import UserError
from ..storage.layout import LORA_SCALES
from .lora_adapters import RESCALED, RescaledLinear, RescaledMark
from .quantized_modules import CONVOLUTIONS, Int4Linear, Int8Conv, RowScaledLinear


class QuantizedLoraLayer(nn.Module, LoraLayer):
    """A quantized layer with LoRA adapters beside it, which compute in the dtype of their input.

    The stored weight never changes, so that without active adapters the output is that of the plain layer, to the bit.
    """

    lora_A: nn.ModuleDict  # noqa: N815  PEFT's name
    lora_B: nn.ModuleDict  # noqa: N815
    lora_dropout: nn.ModuleDict
    scaling: dict[str, float]
    active_adapters: list[str]

    def __init__(
        self, base_layer: nn.Module, adapter_name: str, config: LoraConfig, r: int = 0, lora_alpha: int = 1, **_: Any
    ) -> None:
        super().__init__()
        mark: RescaledMark | None = getattr(base_layer, RESCALED, None)
        if mark and mark.scales is None:
            raise UserError(
                f"The LoRA changes {mark.name}, whose input or output quantization has scaled, but beside the weights "
                f"there is no {LORA_SCALES}, which says by how much. Quantize again if an earlier release quantized "
                "the model; otherwise copy its folder again, whole."
            )
        # No buffers: they keep float32, and no adapter is saved with them.
        self._scales: tuple[Tensor, ...] | None = _balance_scales(*mark.scales) if mark and mark.scales else None
        LoraLayer.__init__(self, base_layer)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, lora_alpha=lora_alpha, config=config)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Adds the outputs of all active adapters to that of the quantized layer."""
        result: Tensor = cast(Any, self.base_layer)(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            if name in self.lora_A:
                # In the dtype of x: float16 of a file may not hold what a bfloat16 model computes.
                down, up, bias = (tensor if tensor is None else tensor.to(x.dtype) for tensor in self._rescale(name))
                hidden = self._project_down(cast(Any, self.lora_dropout[name])(x), cast(Tensor, down))
                result = result + self.scaling[name] * self._project_up(hidden, cast(Tensor, up), bias)
        return result

    def _rescale(self, name: str) -> tuple[Tensor, Tensor, Tensor | None]:
        """The weights of an adapter and its bias, for what the quantized layer reads and returns.

        A layer of the weight W whose input x was divided by s, and whose output is multiplied by o, has the weight
        diag(o) W diag(s); the product B A of an adapter becomes diag(o) B A diag(s).
        """
        down, up = cast(nn.Linear, self.lora_A[name]), cast(nn.Linear, self.lora_B[name])
        if self._scales is None:
            return down.weight, up.weight, up.bias
        reads, returns, bias = self._scales = tuple(scale.to(down.weight.device) for scale in self._scales)
        return down.weight * reads, up.weight * returns[:, None], None if up.bias is None else up.bias * bias

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:  # noqa: ARG002
        """Raises UserError: 4 or 8 bits cannot hold the sum."""
        raise UserError(
            "fuse_lora() cannot merge a LoRA into 4-bit weights. Keep it as an adapter, or merge it before "
            "quantization with 'edgepress quantize --lora PATH'."
        )

    def unmerge(self) -> None:
        """Does nothing, since nothing is ever merged."""

    def _project_down(self, x: Tensor, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def _project_up(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise NotImplementedError


def _balance_scales(read: Tensor | None, returned: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Returns what A, B and the bias of an adapter are multiplied by.

    A power of two goes from A to B, so that powers of two in both scales, which keep float16 from overflowing, do not
    make one of them too large for it.
    """
    reads, returns = (torch.ones(1) if scale is None else scale for scale in (read, returned))
    typical = 2.0 ** round(float(reads.log2().mean()))
    return reads / typical, returns * typical, returns


class QuantizedLoraLinear(QuantizedLoraLayer):
    """A linear layer with 4-bit or 8-bit weights, or one in floating point that was rescaled, with LoRA adapters."""

    def _project_down(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)

    def _project_up(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(hidden, weight, bias)

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
        """The layer's widths; PEFT would warn that it does not know the class."""
        assert isinstance(module, Int4Linear | RowScaledLinear | RescaledLinear)
        return module.in_features, module.out_features


class Int8LoraConv(QuantizedLoraLayer):
    """An `Int8Conv` with LoRA adapters: a convolution to `r` channels, and one with a kernel of 1 from there."""

    def update_layer(self, adapter_name: str, r: int, *args: Any, **kwargs: Any) -> None:
        """Adds an adapter, or replaces one."""
        LoraLayer.update_layer(self, adapter_name, r, *args, **kwargs)
        conv = cast(Int8Conv, self.get_base_layer())
        plain, bias = CONVOLUTIONS[len(conv.kernel_size) - 1], cast(nn.Linear, self.lora_B[adapter_name]).bias
        down = plain(conv.in_channels, r, cast(Any, conv.kernel_size), bias=False)
        up = plain(r, conv.out_channels, 1, bias=bias is not None)
        nn.init.zeros_(up.weight)
        self.lora_A[adapter_name], self.lora_B[adapter_name] = down, up
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=kwargs["config"].inference_mode)

    def _project_down(self, x: Tensor, weight: Tensor) -> Tensor:
        return cast(Int8Conv, self.get_base_layer()).convolve(x, weight, None)

    def _project_up(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(hidden.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
        """The layer's channels; PEFT would warn that it does not know the class."""
        assert isinstance(module, Int8Conv)
        return module.in_channels, module.out_channels


LAYERS: dict[type[nn.Module], type[nn.Module]] = {
    Int4Linear: QuantizedLoraLinear,
    RowScaledLinear: QuantizedLoraLinear,
    Int8Conv: Int8LoraConv,
    RescaledLinear: QuantizedLoraLinear,
}


def register_lora_layers(arguments: Iterable[object] = ()) -> None:
    """Makes PEFT use the layers of this module for quantized ones in every LoRA that is configured from now on.

    Args:
        arguments: Among them may be configs of LoRAs, which were made before.
    """
    for argument in arguments:
        if isinstance(argument, LoraConfig):
            argument._register_custom_module(LAYERS)
    config_class: Any = LoraConfig
    initialize = config_class.__post_init__
    if getattr(initialize, "registers", None) is LAYERS:
        return

    @wraps(initialize)
    def initialize_and_register(self: Any) -> None:
        initialize(self)
        self._register_custom_module(LAYERS)

    initialize_and_register.registers = LAYERS  # type: ignore[attr-defined]
    config_class.__post_init__ = initialize_and_register
