"""Builds components of diffusers and transformers without their weights."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..common.errors import UserError
from ..common.validation import format_value
from ..storage.files import read_json_object
from ..storage.recovery import advise_recovery

if TYPE_CHECKING:
    import torch
    from torch import nn

MIN_LAYER_LIMIT = 1000  # more than any model has
ENCODER_CONFIG = "encoder"  # in the config of an encoder and a decoder


def resolve_class(library: str, class_name: str) -> Any:
    """Returns the class that an entry of model_index.json names.

    Args:
        library: `diffusers`, `transformers`, or a folder of `diffusers.pipelines`, such as `kolors`.
        class_name: Name of the class.

    Raises:
        AttributeError: The library has no such class.
        ImportError: There is no such library.
    """
    import diffusers.pipelines

    folder = getattr(diffusers.pipelines, library, None) if library not in ("diffusers", "transformers") else None
    return getattr(folder or importlib.import_module(library), class_name)


def build_empty_module(
    library: str, class_name: str, config: Mapping[str, Any], dtype: torch.dtype | None = None
) -> nn.Module:
    """Builds a component with all parameters on the meta device. Buffers that it computes itself are real.

    Args:
        library: `diffusers`, `transformers`, or a folder of `diffusers.pipelines`, as model_index.json names it.
        class_name: The component's class.
        config: Its config.json.
        dtype: Dtype of a component of transformers; None: that of the config.

    Raises:
        AttributeError: The library has no such class.
    """
    from accelerate import init_empty_weights
    from transformers.initialization import no_init_weights

    cls = resolve_class(library, class_name)
    with init_empty_weights(include_buffers=False), no_init_weights():
        if hasattr(cls, "from_config"):
            module: nn.Module = cls.from_config(config)
        else:
            options = {} if dtype is None else {"dtype": dtype}
            module = cls._from_config(_load_config(cls, config), **options)
            cast(Any, module).tie_weights()  # part of the initialization that is left out
    return module


def get_architecture(config: Mapping[str, Any]) -> str | None:
    """The class that a config of transformers was saved from; None if it names none."""
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None


def find_config_part(class_name: str, config: Mapping[str, Any]) -> str:
    """The key under which a config describes a class; empty if the whole config does.

    An encoder alone has the config of an encoder and a decoder, of which diffusers reads the encoder's.

    Args:
        class_name: The component's class.
        config: Its config.json.
    """
    is_part = class_name.endswith(ENCODER_CONFIG.title()) and isinstance(config.get(ENCODER_CONFIG), dict)
    return ENCODER_CONFIG if is_part else ""


def _load_config(cls: Any, values: Mapping[str, Any]) -> Any:
    """Returns the config that a model of transformers is made from."""
    config, part = cls.config_class.from_dict(values), find_config_part(cls.__name__, values)
    return getattr(config, part) if part else config


def find_too_many_layers(config: Mapping[str, Any], num_weights: int = 0) -> str:
    """The entry of a config that asks for more layers than there can be; empty if there is none.

    Building them would take minutes, or all the memory.

    Args:
        config: The config.json of a component.
        num_weights: Number of its weights, as far as they are known.
    """
    limit = max(MIN_LAYER_LIMIT, num_weights)
    for key, value in config.items():
        if re.search("layers|blocks|depth", key) and isinstance(value, int) and value > limit:
            return f"{key}: {format_value(value)}"
    return ""


def build_empty_component(folder: Path) -> Any:
    """Builds a component with its parameters on the meta device. Buffers that it computes itself are real.

    Raises:
        UserError: config.json is missing, unreadable, names an unknown class, or more layers than any model has.
    """
    config = load_component_config(folder)
    too_many = find_too_many_layers(config)
    if too_many:
        raise UserError(f"{folder / 'config.json'} says {too_many}, which no model has. {advise_recovery(folder)}")
    if "_class_name" in config:
        library, name = "diffusers", config["_class_name"]
    else:
        library, name = "transformers", get_architecture(config) or "?"
    if not hasattr(importlib.import_module(library), str(name)):
        raise UserError(
            f"{folder / 'config.json'} names the class {format_value(name)}, which {library} does not have. "
            "Update that library."
        )
    return build_empty_module(library, name, config).eval().requires_grad_(False)


def load_component_config(folder: Path) -> dict[str, Any]:
    """Reads a component's config.json, without how its weights are stored.

    Raises:
        UserError: The file is missing or unreadable.
    """
    config = read_json_object(folder / "config.json")
    return {key: value for key, value in config.items() if key != "quantization_config"}
