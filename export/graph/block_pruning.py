"""Prunes identical blocks of a component before tracing; `passes/repeat_blocks.py` copies them into the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

# The pass copies the third block, by what the fourth reads of it. The outputs of the last may be unused.
NUM_TRACED_BLOCKS = 5
PlainValue = (bool, int, float, str, tuple, type(None))


def prune_repeated_blocks(component: nn.Module) -> dict[str, int]:
    """Keeps 5 blocks of every longer list of identical blocks, in place.

    Returns:
        How many blocks were removed, by the path of their list.
    """
    num_pruned: dict[str, int] = {}
    for path, blocks in list(component.named_modules()):
        is_nested = any(path.startswith(f"{outer}.") for outer in num_pruned)
        if is_nested or not isinstance(blocks, nn.ModuleList) or len(blocks) <= NUM_TRACED_BLOCKS:
            continue
        if _is_homogeneous(list(blocks)):
            num_pruned[path] = len(blocks) - NUM_TRACED_BLOCKS
            component.set_submodule(path, nn.ModuleList(list(blocks)[:NUM_TRACED_BLOCKS]))
    return num_pruned


def _is_homogeneous(blocks: Sequence[nn.Module]) -> bool:
    """Whether blocks have the same modules, weights and settings, except for settings that count the blocks."""
    descriptions = [[_describe_module(module) for module in block.modules()] for block in blocks]
    if len({len(modules) for modules in descriptions}) > 1:
        return False
    return all(_is_same_module(copies) for copies in zip(*descriptions, strict=True))


def _describe_module(module: nn.Module) -> dict[str, Any]:
    """Returns a module's class, the shapes of its own weights, its buffers, and its settings."""
    shapes = {name: tuple(weight.shape) for name, weight in module.named_parameters(recurse=False)}
    buffers = {name: buffer.numpy().tobytes() for name, buffer in module.named_buffers(recurse=False)}
    settings = {name: value for name, value in vars(module).items() if isinstance(value, PlainValue)}
    return {"class": type(module), "weights": tuple(shapes.items()), "buffers": buffers, **settings}


def _is_same_module(copies: Sequence[dict[str, Any]]) -> bool:
    """Whether the copies of one module in all blocks have the same description."""
    first = copies[0]
    return all(copy.keys() == first.keys() for copy in copies) and all(
        all(copy[key] == first[key] for copy in copies) or _is_counter([copy[key] for copy in copies]) for key in first
    )


def _is_counter(values: Sequence[Any]) -> bool:
    """Whether values are consecutive integers."""
    return all(type(value) is int for value in values) and list(values) == list(
        range(values[0], values[0] + len(values))
    )
