"""Finds numbers in a component, from its config, with which it computes nothing but NaN, or does not compute at all."""

from __future__ import annotations

from math import isfinite

import torch
from torch import nn

from ..common.validation import format_value

EPSILONS = ("eps", "variance_epsilon")  # what normalizations add to a variance
BASES = ("theta", "rope_theta")  # what the frequencies of rotary embeddings are powers of


def find_unusable_value(module: nn.Module) -> str:
    """Finds a number that a component cannot compute with.

    Args:
        module: The component, with or without weights; buffers that it computes from its config are real.

    Returns:
        A clause that names the number, such as `norm.eps is null`; empty if there is none.
    """
    for name, part in module.named_modules():
        for attribute in (*EPSILONS, *BASES):
            if attribute in vars(part) and not _is_usable(part, attribute):
                path = f"{name}.{attribute}" if name else attribute
                return f"{path} is {format_value(getattr(part, attribute))}"
    for name, buffer in module.named_buffers():
        if buffer.device.type != "meta" and buffer.is_floating_point() and not bool(torch.isfinite(buffer).all()):
            return f"{name} has numbers that are not finite"
    return ""


def _is_usable(module: nn.Module, attribute: str) -> bool:
    value = getattr(module, attribute)
    if value is None and isinstance(module, nn.RMSNorm):  # it takes that of the dtype
        return True
    if value is None or isinstance(value, str):
        return False
    if not isinstance(value, int | float):
        return True  # not the number that the name stands for elsewhere
    return isfinite(value) and (value >= 0 if attribute in EPSILONS else value > 0)
