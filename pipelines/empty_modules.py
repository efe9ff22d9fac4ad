"""Builds components of diffusers and transformers without their weights."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn


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
            module = cls._from_config(cls.config_class.from_dict(config), **options)
            cast(Any, module).tie_weights()  # part of the initialization that is left out
    return module
