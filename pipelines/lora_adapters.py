"""Makes `load_lora_weights` and the other methods that add adapters work on quantized models.

PEFT does not know 4-bit linears. The methods of diffusers and transformers that call it are wrapped to register them
first; nothing imports PEFT before an adapter is added.

Where quantization moved a scale into or out of a linear, an adapter beside it would read or add to other values than it
was trained on. Such linears are marked, and adding an adapter to one is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import wraps
from typing import Any

from torch import nn

MIXIN = "PeftAdapterMixin"  # of diffusers and of transformers
METHODS = ("load_lora_adapter", "load_adapter", "add_adapter")
MARK = "_registers_int4_lora"
RESCALED = "rescaled_linear"  # attribute of a marked linear, with its name


class RescaledLinear(nn.Linear):
    """A marked linear in floating point, which PEFT would know otherwise."""


def enable_lora_adapters(model: nn.Module, rescaled_linears: Collection[str] = ()) -> None:
    """Prepares the class of a quantized model, and with it all that add adapters in the same way.

    Args:
        model: The model.
        rescaled_linears: Names of its linears that no adapter fits.
    """
    for name in rescaled_linears:
        linear = model.get_submodule(name)
        setattr(linear, RESCALED, name)
        if type(linear) is nn.Linear:
            linear.__class__ = RescaledLinear
    for cls in type(model).__mro__:
        if cls.__name__ == MIXIN:
            for name in METHODS:
                method = vars(cls).get(name)
                if method is not None and not hasattr(method, MARK):
                    setattr(cls, name, _register_first(method))


def _register_first(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from .lora_layers import register_lora_layers

        register_lora_layers((*args, *kwargs.values()))
        return method(*args, **kwargs)

    setattr(wrapped, MARK, True)
    return wrapped
