"""What must be known of each model family, as data: one file a family, found by its pipeline's class name.

To add a family, add a file here that defines FAMILY; nothing else names it.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from ..errors import UserError
from .family import Block, Chain, Component, Family, Fold
from .graphs import Graph, Port

__all__ = ["Block", "Chain", "Component", "Family", "Fold", "Graph", "Port", "families", "family_of"]

COMPANIONS = ("_graphs", "_host", "_reference")  # beside a family's file; some need torch, which a device has not


@cache
def families() -> dict[str, Family]:
    """Every family, by pipeline class name."""
    names = (info.name for info in pkgutil.iter_modules(__path__) if not info.name.endswith(COMPANIONS))
    modules = (importlib.import_module(f"{__name__}.{name}") for name in names)
    found = [module.FAMILY for module in modules if hasattr(module, "FAMILY")]
    return {family.pipeline: family for family in found}


def family_of(pipeline: str) -> Family:
    """The family of a pipeline class.

    Raises:
        UserError: nothing is known of that class.
    """
    if pipeline not in families():
        known = ", ".join(sorted(families()))
        raise UserError(
            f"The pipeline class {pipeline!r} is unknown here; known: {known}. "
            "docs/add-a-model.md says how to add a family as data."
        )
    return families()[pipeline]
