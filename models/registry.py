"""Finds model families: every sub-package of `models` whose `family` module defines FAMILY.

To add a family, add a folder; nothing else names it (see docs/add-a-model.md). Families are plain data, so that looking
one up imports neither torch nor diffusers.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.util import find_spec

from .. import models
from ..common.errors import UserError
from .base.family import Family


@cache
def load_families() -> dict[str, Family]:
    """Loads all families.

    Returns:
        Families by the class name of their pipeline.

    Raises:
        UserError: Two families describe the same pipeline class.
    """
    families: dict[str, Family] = {}
    origins: dict[str, str] = {}
    for package in pkgutil.iter_modules(models.__path__, f"{models.__name__}."):
        name = f"{package.name}.family"
        if not package.ispkg or find_spec(name) is None:
            continue
        family = getattr(importlib.import_module(name), "FAMILY", None)
        if family is None:
            continue
        pipeline_class = family.pipeline_class
        if pipeline_class in families:
            raise UserError(
                f"{origins[pipeline_class]} and {name} both describe {pipeline_class}. Remove one of the two."
            )
        families[pipeline_class], origins[pipeline_class] = family, name
    return families


def get_family(pipeline_class: str) -> Family:
    """Returns the family of a pipeline class.

    Args:
        pipeline_class: Class name, as `_class_name` of model_index.json gives it.

    Raises:
        UserError: No family describes the class.
    """
    families = load_families()
    if pipeline_class not in families:
        raise UserError(
            f"Pipeline class {pipeline_class!r} is not supported; supported: {', '.join(sorted(families))}. "
            "See docs/add-a-model.md to add a family."
        )
    return families[pipeline_class]
