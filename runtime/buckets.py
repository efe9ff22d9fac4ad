"""Graphs of fixed shapes: which file of a graph is run, as the shapes of what it is given say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from .sessions import Sessions

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Bucket:
    """A file of a graph, by its name, and the sizes of all axes in it, by theirs; none where they are dynamic."""

    name: str
    axes: Mapping[str, int]


@dataclass(frozen=True)
class Shaped:
    """A graph: what its inputs' axes are called (numbers are sizes that never change), and its files."""

    ports: Mapping[str, tuple[int | str, ...]]
    buckets: Sequence[Bucket]

    def axes(self, inputs: Arrays) -> dict[str, int]:
        """The sizes of the axes that inputs have, by name."""
        named = [(axis, size) for name, array in inputs.items() for axis, size in self._sized(name, array)]
        return {axis: size for axis, size in named if isinstance(axis, str)}

    def _sized(self, name: str, array: NDArray[Any]) -> list[tuple[int | str, int]]:
        return list(zip(self.ports[name], array.shape, strict=True))


class Picked:
    """Runs graphs of fixed shapes by name."""

    def __init__(self, sessions: Sessions, graphs: Mapping[str, Shaped]) -> None:
        self._sessions, self._graphs = sessions, graphs

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        """The first output of a graph, as `Sessions` gives it."""
        return self.outputs(name, inputs)[0]

    @property
    def loading(self) -> float:
        """Seconds that loading graphs has taken so far."""
        return self._sessions.loading

    @property
    def engine(self) -> str:
        """What runs the graphs, as `Sessions` says it."""
        return self._sessions.engine

    def outputs(self, name: str, inputs: Arrays) -> list[NDArray[np.float32]]:
        """All outputs of a graph."""
        return self._sessions.outputs(pick(self._graphs, name, inputs), inputs)


def pick(graphs: Mapping[str, Shaped], name: str, inputs: Arrays) -> str:
    """The name of the file of a graph that takes inputs of those shapes.

    Raises:
        UserError: there is none.
    """
    if name not in graphs:
        raise UserError(f"The artifact has no graph {name!r}, only {', '.join(graphs)}; export it again.")
    axes = graphs[name].axes(inputs)
    for bucket in graphs[name].buckets:
        if not bucket.axes or bucket.axes == axes:
            return bucket.name
    there = "; ".join(_told(bucket.axes) for bucket in graphs[name].buckets)
    raise UserError(f"The graph {name} is there for {there}, not for {_told(axes)}; export it for that shape too.")


def _told(axes: Mapping[str, int]) -> str:
    return ", ".join(f"{axis} {size}" for axis, size in axes.items())
