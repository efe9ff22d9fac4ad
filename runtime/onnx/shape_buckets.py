"""Graphs of fixed shapes: which file of a graph is run, as the shapes of what it is given say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from .sessions import SessionPool

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ShapeBucket:
    """A file of a graph, by its name, and the sizes of all axes in it, by theirs; none where they are dynamic."""

    name: str
    axis_sizes: Mapping[str, int]


@dataclass(frozen=True)
class BucketedGraph:
    """A graph: what its inputs' axes are called (numbers are sizes that never change), and its files."""

    input_axes: Mapping[str, tuple[int | str, ...]]
    buckets: Sequence[ShapeBucket]

    def axis_sizes(self, inputs: Arrays) -> dict[str, int]:
        """The sizes of the axes that inputs have, by name."""
        named = [(axis, size) for name, array in inputs.items() for axis, size in self._iter_axis_sizes(name, array)]
        return {axis: size for axis, size in named if isinstance(axis, str)}

    def _iter_axis_sizes(self, name: str, array: NDArray[Any]) -> list[tuple[int | str, int]]:
        return list(zip(self.input_axes[name], array.shape, strict=True))


class BucketedSessions:
    """Runs graphs of fixed shapes by name."""

    def __init__(self, sessions: SessionPool, graphs: Mapping[str, BucketedGraph]) -> None:
        self._sessions, self._graphs = sessions, graphs

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        """The first output of a graph, as `Sessions` gives it."""
        return self.run(name, inputs)[0]

    @property
    def load_seconds(self) -> float:
        """Seconds that loading graphs has taken so far."""
        return self._sessions.load_seconds

    @property
    def engine(self) -> str:
        """What runs the graphs, as `Sessions` says it."""
        return self._sessions.engine

    def run(self, name: str, inputs: Arrays) -> list[NDArray[np.float32]]:
        """All outputs of a graph."""
        return self._sessions.run(select_bucket(self._graphs, name, inputs), inputs)


def select_bucket(graphs: Mapping[str, BucketedGraph], name: str, inputs: Arrays) -> str:
    """The name of the file of a graph that takes inputs of those shapes.

    Raises:
        UserError: there is none.
    """
    if name not in graphs:
        raise UserError(f"The artifact has no graph {name!r}, only {', '.join(graphs)}; export it again.")
    axes = graphs[name].axis_sizes(inputs)
    for bucket in graphs[name].buckets:
        if not bucket.axis_sizes or bucket.axis_sizes == axes:
            return bucket.name
    there = "; ".join(_format_axes(bucket.axis_sizes) for bucket in graphs[name].buckets)
    raise UserError(
        f"The graph {name} is there for {there}, not for {_format_axes(axes)}; export it for that shape too."
    )


def _format_axes(axes: Mapping[str, int]) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in axes.items())
