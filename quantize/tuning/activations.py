"""Linears that read their input in 8 bits, as devices with quantized activations multiply it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from ..algorithms.activation_rounding import fake_quantize_per_tensor, fake_quantize_per_token


def quantize_inputs(module: nn.Module, scales: Mapping[str, float | None]) -> None:
    """Rounds the inputs of linears to 8 bits when the module runs; gradients pass as if they were not rounded.

    Args:
        module: The module, changed in place.
        scales: The static scale of each linear's input by the linear's name; None for a scale for each token.
    """
    for name, scale in scales.items():
        module.get_submodule(name).register_forward_pre_hook(partial(_round_input, scale))


def _round_input(scale: float | None, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    x: Tensor = inputs[0]
    exact = x.detach().float()
    rounded = fake_quantize_per_token(exact) if scale is None else fake_quantize_per_tensor(exact, scale)
    return (x + (rounded - exact).to(x.dtype), *inputs[1:])
