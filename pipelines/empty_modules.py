"""Builds components of diffusers and transformers without their weights."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn


def build_empty_module(
    library: str, class_name: str, config: Mapping[str, Any], dtype: torch.dtype | None = None
) -> nn.Module:
    """Builds a component with all parameters on the meta device. Buffers that it computes itself are real.

    Args:
        library: `diffusers`, or else a library with the interface of transformers.
        class_name: The component's class.
        config: Its config.json.
        dtype: Dtype of a component of transformers; None: that of the config.

    Raises:
        AttributeError: The library has no such class.
    """
    from accelerate import init_empty_weights
    from transformers.initialization import no_init_weights

    cls = getattr(importlib.import_module(library), class_name)
    with init_empty_weights(include_buffers=False), no_init_weights():
        if library == "diffusers":
            module: nn.Module = cls.from_config(config)
        else:
            options = {} if dtype is None else {"dtype": dtype}
            module = cls._from_config(cls.config_class.from_dict(config), **options)
            cast(Any, module).tie_weights()  # part of the initialization that is left out
    return module
