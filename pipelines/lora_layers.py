"""PEFT's layer for LoRA adapters beside 4-bit weights. Importing this module imports PEFT."""

from __future__ import annotations

from collections.abc import Iterable
from functools import wraps
from typing import Any, cast

import torch.nn.functional as F
from peft import LoraConfig  # type: ignore[import, unused-ignore]
from peft.tuners.lora import LoraLayer  # type: ignore[import, unused-ignore]
from torch import Tensor, nn

from ..common.errors import UserError
from .quantized_modules import Int4Linear


class Int4LoraLinear(nn.Module, LoraLayer):
    """An `Int4Linear` with LoRA adapters beside it, which compute in the dtype of their input.

    The packed weight never changes, so that without active adapters the output is that of the plain layer, to the bit.
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
        LoraLayer.__init__(self, base_layer)
        self._active_adapter = adapter_name
        LoraLayer.update_layer(self, adapter_name, r, lora_alpha=lora_alpha, config=config)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Adds the outputs of all active adapters to that of the packed weight."""
        result: Tensor = cast(Any, self.base_layer)(x, *args, **kwargs)
        if self.disable_adapters:
            return result
        for name in self.active_adapters:
            if name in self.lora_A:
                # In the dtype of x: float16 of a file may not hold what a bfloat16 model computes.
                down, up = cast(nn.Linear, self.lora_A[name]), cast(nn.Linear, self.lora_B[name])
                hidden = F.linear(cast(Any, self.lora_dropout[name])(x), down.weight.to(x.dtype))
                bias = None if up.bias is None else up.bias.to(x.dtype)
                result = result + self.scaling[name] * F.linear(hidden, up.weight.to(x.dtype), bias)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:  # noqa: ARG002
        """Raises UserError: 4-bit weights cannot hold the sum."""
        raise UserError(
            "fuse_lora() cannot merge a LoRA into 4-bit weights. Keep it as an adapter, or merge it before "
            "quantization with 'edgepress quantize --lora PATH'."
        )

    def unmerge(self) -> None:
        """Does nothing, since nothing is ever merged."""

    def _get_in_out_features(self, module: nn.Module) -> tuple[int, int]:
        """The layer's widths; PEFT would warn that it does not know the class."""
        assert isinstance(module, Int4Linear)
        return module.in_features, module.out_features


LAYERS: dict[type[nn.Module], type[nn.Module]] = {Int4Linear: Int4LoraLinear}


def register_lora_layers(arguments: Iterable[object] = ()) -> None:
    """Makes PEFT use `Int4LoraLinear` for `Int4Linear` in every LoRA that is configured from now on.

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
