"""Graphs of fixed shapes: each has a file for every combination of sizes, and the inputs select the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ..graph_sessions import GraphSessions

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ShapeBucket:
    """A file of a graph.

    Attributes:
        name: Its name.
        axis_sizes: Sizes of all axes, by name; empty if they are dynamic.
    """

    name: str
    axis_sizes: Mapping[str, int]


@dataclass(frozen=True)
class BucketedGraph:
    """A graph with one or more files.

    Attributes:
        input_axes: Axes of each input: names of those that differ between files, sizes of those that do not.
        buckets: Its files.
    """

    input_axes: Mapping[str, tuple[int | str, ...]]
    buckets: Sequence[ShapeBucket]

    def axis_sizes(self, inputs: Arrays) -> dict[str, int]:
        """Returns the sizes of the named axes of inputs."""
        sizes: dict[str, int] = {}
        for name, array in inputs.items():
            axes = zip(self.input_axes[name], array.shape, strict=True)
            sizes |= {axis: size for axis, size in axes if isinstance(axis, str)}
        return sizes


class BucketedSessions:
    """Runs graphs of fixed shapes by name.

    Args:
        sessions: Runs files by name.
        graphs: The graphs, by name.
    """

    def __init__(self, sessions: GraphSessions, graphs: Mapping[str, BucketedGraph]) -> None:
        self._sessions, self._graphs = sessions, graphs

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        """Returns the first output of a graph, as `SessionPool` does."""
        return self.run(name, inputs)[0]

    def run(self, name: str, inputs: Arrays) -> list[NDArray[np.float32]]:
        """Returns all outputs of a graph.

        Raises:
            UserError: The graph does not exist or was not exported for these shapes, or ONNX Runtime fails.
        """
        return self._sessions.run(select_bucket(self._graphs, name, inputs), inputs)

    @property
    def load_seconds(self) -> float:
        """Time spent loading graphs so far, in seconds."""
        return self._sessions.load_seconds

    @property
    def engine(self) -> str:
        """Name and version of the engine that runs the graphs."""
        return self._sessions.engine


def select_bucket(graphs: Mapping[str, BucketedGraph], name: str, inputs: Arrays) -> str:
    """Returns the name of the file of a graph whose shapes are those of the inputs.

    Raises:
        UserError: The graph does not exist or was not exported for these shapes.
    """
    if name not in graphs:
        raise UserError(
            f"Graph {name!r} is not in pipeline.json, which lists {', '.join(graphs)}. Export the artifact again."
        )
    axis_sizes = graphs[name].axis_sizes(inputs)
    for bucket in graphs[name].buckets:
        if not bucket.axis_sizes or bucket.axis_sizes == axis_sizes:
            return bucket.name
    exported = "; ".join(_format_axes(bucket.axis_sizes) for bucket in graphs[name].buckets)
    raise UserError(
        f"Graph {name!r} was exported for {exported}, but {_format_axes(axis_sizes)} was requested. "
        "Export it for that shape as well."
    )


def _format_axes(axis_sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{axis}={size}" for axis, size in axis_sizes.items())
