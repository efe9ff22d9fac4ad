"""Components with fewer copies of their blocks, for tracing: `passes/repeat.py` puts the others into the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

NUM_TRACED_BLOCKS = (
    5  # of a block: the pass copies what is read of the third and wants one after it; the last may go unread
)
PlainValue = (bool, int, float, str, tuple, type(None))


def prune_repeated_blocks(component: nn.Module) -> dict[str, int]:
    """Leaves 5 copies of blocks of which there are more and all are alike, in place; gives how many went, by path."""
    num_pruned: dict[str, int] = {}
    for path, blocks in list(component.named_modules()):
        is_nested = any(path.startswith(f"{other}.") for other in num_pruned)
        if (
            isinstance(blocks, nn.ModuleList)
            and len(blocks) > NUM_TRACED_BLOCKS
            and not is_nested
            and _is_homogeneous(list(blocks))
        ):
            num_pruned[path] = len(blocks) - NUM_TRACED_BLOCKS
            component.set_submodule(path, nn.ModuleList(list(blocks)[:NUM_TRACED_BLOCKS]))
    return num_pruned


def _is_homogeneous(blocks: Sequence[nn.Module]) -> bool:
    """Whether blocks have the same modules, with the same weights and settings but for numbers that count them."""
    descriptions = [[_describe_module(module) for module in block.modules()] for block in blocks]
    if len({len(modules) for modules in descriptions}) > 1:
        return False
    return all(_is_same_module(copies) for copies in zip(*descriptions, strict=True))


def _describe_module(module: nn.Module) -> dict[str, Any]:
    """A module's class, the shapes of its own weights, its tables, and its settings."""
    shapes = {name: tuple(weight.shape) for name, weight in module.named_parameters(recurse=False)}
    tables = {name: table.numpy().tobytes() for name, table in module.named_buffers(recurse=False)}
    settings = {name: value for name, value in vars(module).items() if isinstance(value, PlainValue)}
    return {"class": type(module), "weights": tuple(shapes.items()), "tables": tables, **settings}


def _is_same_module(copies: Sequence[dict[str, Any]]) -> bool:
    """Of the copies of one module."""
    first = copies[0]
    return all(copy.keys() == first.keys() for copy in copies) and all(
        all(copy[key] == first[key] for copy in copies) or _is_counter([copy[key] for copy in copies]) for key in first
    )


def _is_counter(values: Sequence[Any]) -> bool:
    """Whether values are integers one after another."""
    return all(type(value) is int for value in values) and list(values) == list(
        range(values[0], values[0] + len(values))
    )
