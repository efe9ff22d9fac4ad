"""Prunes identical blocks of a component before tracing; `passes/repeat_blocks.py` copies them into the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from .passes.repeat_blocks import INSERT_INDEX, TEMPLATE_INDEX

# The pass copies the third block, by what the fourth reads of it. The outputs of the last may be unused.
NUM_TRACED_BLOCKS = 5
NUM_TRACED_TO_READ = INSERT_INDEX + 1  # up to the first block whose output is read, which is not copied
PlainValue = (bool, int, float, str, tuple, type(None))


def prune_repeated_blocks(component: nn.Module, read_blocks: Sequence[int] = ()) -> dict[str, dict[int, int]]:
    """Keeps 5 blocks of every longer list of identical blocks, in place.

    Args:
        component: The component.
        read_blocks: Numbers, from 1 on, of blocks behind which states are read: 4 blocks up to the first and one up to
            each other are kept.

    Returns:
        By the path of a list: how many blocks were removed behind the block of an index that was kept.
    """
    counts = _count_unread_blocks(read_blocks)
    num_traced = number_read_blocks(read_blocks)[-1] if read_blocks else NUM_TRACED_BLOCKS
    min_blocks = max((num_traced + 1, *read_blocks))
    num_pruned: dict[str, dict[int, int]] = {}
    for path, blocks in list(component.named_modules()):
        is_nested = any(path.startswith(f"{outer}.") for outer in num_pruned)
        if is_nested or not isinstance(blocks, nn.ModuleList) or len(blocks) < min_blocks:
            continue
        if _is_homogeneous(list(blocks)):
            num_pruned[path] = counts if read_blocks else {TEMPLATE_INDEX: len(blocks) - num_traced}
            component.set_submodule(path, nn.ModuleList(list(blocks)[:num_traced]))
    return num_pruned


def number_read_blocks(read_blocks: Sequence[int]) -> tuple[int, ...]:
    """Returns the numbers that the blocks behind which states are read have after pruning."""
    return tuple(min(read_blocks[0], NUM_TRACED_TO_READ) + index for index in range(len(read_blocks)))


def _count_unread_blocks(read_blocks: Sequence[int]) -> dict[int, int]:
    """Returns how many blocks to remove behind the block of an index: those between which no state is read."""
    traced = (0, *number_read_blocks(read_blocks))
    numbers = (0, *read_blocks)
    counts = {
        traced[at + 1] - 2: (numbers[at + 1] - numbers[at]) - (traced[at + 1] - traced[at])
        for at in range(len(read_blocks))
    }
    return {index: count for index, count in counts.items() if count}


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
