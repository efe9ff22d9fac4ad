"""Finds what single files of weights look like: every module `single_file` in a sub-package of `models` has LAYOUTS.

They belong to the class of a component, so that they serve every pipeline that has one. Plain data, as families are.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec

from .. import models
from ..common.errors import UserError
from .base.family import Family
from .base.single_file import Config, MakeLayout, SingleFileLayout


def find_layout(model_class: str, config: Config) -> SingleFileLayout | None:
    """Finds the layout of a component, if edgepress knows one.

    Args:
        model_class: The component's class.
        config: Its config.json.
    """
    layout = _load_layouts().get(model_class)
    return layout if layout is None or isinstance(layout, SingleFileLayout) else layout(config)


def find_layouts(family: Family, configs: Mapping[str, Config]) -> dict[str, SingleFileLayout]:
    """Finds the layouts of a pipeline's components, by component.

    Args:
        family: What the pipeline consists of.
        configs: The config.json of each component that is there.

    Raises:
        UserError: edgepress does not know that of the denoiser.
    """
    parts = [part for part in family.components if part.name in configs]
    layouts = {
        part.name: layout for part in parts if (layout := find_layout(part.model_class, configs[part.name])) is not None
    }
    if family.denoiser not in layouts:
        raise UserError(
            f"edgepress does not know the names of tensors in single files of {family.pipeline_class}. "
            "See docs/add-a-model.md to add them."
        )
    return layouts


@cache
def _load_layouts() -> dict[str, SingleFileLayout | MakeLayout]:
    """All layouts, or functions that make them, by the class of the component."""
    layouts: dict[str, SingleFileLayout | MakeLayout] = {}
    for package in pkgutil.iter_modules(models.__path__, f"{models.__name__}."):
        name = f"{package.name}.single_file"
        if package.ispkg and find_spec(name) is not None:
            layouts |= getattr(importlib.import_module(name), "LAYOUTS", {})
    return layouts
