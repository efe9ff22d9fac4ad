"""Makes `load_lora_weights` and the other methods that add adapters work on quantized models.

PEFT does not know 4-bit linears. The methods of diffusers and transformers that call it are wrapped to register them
first; nothing imports PEFT before an adapter is added.

Where quantization moved a scale into or out of a linear, an adapter beside it would read or add to other values than it
was trained on. Such linears are marked with the scales, which adapters undo.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from .lora_scales import LoraScales, read_lora_scales

MIXIN = "PeftAdapterMixin"  # of diffusers and of transformers
METHODS = ("load_lora_adapter", "load_adapter", "add_adapter")
PADDING_METHOD = "_maybe_expand_lora_state_dict"  # of loaders of diffusers
MARK = "_registers_int4_lora"
RESCALED = "rescaled_linear"  # attribute of a marked linear: a RescaledMark


class RescaledMark(NamedTuple):
    """What is known of a linear that reads or returns other values than in the original.

    Attributes:
        name: Its path.
        scales: What adapters beside it are scaled by; None if the component's folder does not say.
    """

    name: str
    scales: LoraScales | None


class RescaledLinear(nn.Linear):
    """A marked linear in floating point, which PEFT would know otherwise."""


def enable_lora_adapters(model: nn.Module, rescaled_linears: Collection[str] = (), folder: Path | None = None) -> None:
    """Prepares the class of a quantized model, and with it all that add adapters in the same way.

    Args:
        model: The model.
        rescaled_linears: Names of its linears that read or return other values than in the original.
        folder: Where the model is loaded from, with the scales of these linears.
    """
    scales = read_lora_scales(folder, rescaled_linears) if folder and rescaled_linears else {}
    for name in rescaled_linears:
        linear = model.get_submodule(name)
        setattr(linear, RESCALED, RescaledMark(name, scales.get(name)))
        if type(linear) is nn.Linear:
            linear.__class__ = RescaledLinear
    for cls in type(model).__mro__:
        if cls.__name__ == MIXIN:
            for name in METHODS:
                method = vars(cls).get(name)
                if method is not None and not hasattr(method, MARK):
                    setattr(cls, name, _register_first(method))
    if type(model).__module__.startswith("diffusers."):
        _allow_quantized_layers()


def _allow_quantized_layers() -> None:
    """Makes the loaders of diffusers that widen a LoRA to the weight of its layer leave quantized layers out."""
    from diffusers.loaders import lora_pipeline

    for loader in vars(lora_pipeline).values():
        method = vars(loader).get(PADDING_METHOD) if isinstance(loader, type) else None
        if method is not None and not hasattr(method.__func__, MARK):
            setattr(loader, PADDING_METHOD, classmethod(_pad_plain_layers(method.__func__)))


def _pad_plain_layers(method: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    @wraps(method)
    def wrapped(cls: type, transformer: nn.Module, lora_state_dict: dict[str, Any]) -> dict[str, Any]:
        """Passes on what is for layers with a weight; tensors of quantized ones must fit as they are."""
        prefix = f"{getattr(cls, 'transformer_name')}."  # noqa: B009  of the loader's own
        plain = {
            key: tensor
            for key, tensor in lora_state_dict.items()
            if not _is_quantized(transformer, key.removeprefix(prefix).partition(".lora_")[0])
        }
        return lora_state_dict | method(cls, transformer=transformer, lora_state_dict=plain)

    setattr(wrapped, MARK, True)
    return wrapped


def _is_quantized(model: nn.Module, path: str) -> bool:
    """Whether a layer of a model, with or without adapters beside it, has no plain weight."""
    try:
        layer = model.get_submodule(path)
    except AttributeError:
        return False
    layer = getattr(layer, "base_layer", layer)
    return "weight" not in layer.state_dict(keep_vars=True)


def _register_first(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        from .lora_layers import register_lora_layers

        register_lora_layers((*args, *kwargs.values()))
        return method(*args, **kwargs)

    setattr(wrapped, MARK, True)
    return wrapped
