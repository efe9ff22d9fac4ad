"""What must be known of each model family, as data: one file a family, found by its pipeline's class name.

To add a family, add a file here that defines FAMILY; nothing else names it.
"""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

from ..common.errors import UserError
from .base.family import Block, Component, Family, Fold, ShiftChain
from .base.graph import Graph, Port

__all__ = ["Block", "ShiftChain", "Component", "Family", "Fold", "Graph", "Port", "load_families", "get_family"]


@cache
def load_families() -> dict[str, Family]:
    """Every family, by pipeline class name."""
    folder = Path(__file__).parent
    names = sorted(file.parent.name for file in folder.glob("*/family.py") if file.parent.name != "base")
    modules = [importlib.import_module(f".{name}.family", __package__) for name in names]
    return {module.FAMILY.pipeline: module.FAMILY for module in modules}


def get_family(pipeline: str) -> Family:
    """The family of a pipeline class.

    Raises:
        UserError: nothing is known of that class.
    """
    if pipeline not in load_families():
        known = ", ".join(sorted(load_families()))
        raise UserError(
            f"The pipeline class {pipeline!r} is unknown here; known: {known}. "
            "docs/add-a-model.md says how to add a family as data."
        )
    return load_families()[pipeline]
