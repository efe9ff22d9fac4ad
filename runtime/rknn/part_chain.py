"""Graphs as chains of parts: each takes what the one before gives, and whatever else of the graph's inputs it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError

Arrays = dict[str, NDArray[Any]]
RunPart = Callable[[str, Arrays], NDArray[np.float32]]


@dataclass(frozen=True)
class PartRef:
    """A part by name, and its inputs in order; of every part but the first, the first one is what it is handed."""

    name: str
    inputs: tuple[str, ...]


class ChainedGraphs:
    """Runs graphs by name, part after part."""

    def __init__(self, graphs: Mapping[str, Sequence[PartRef]], run: RunPart) -> None:
        self._graphs, self._run = graphs, run

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        """The output of a graph.

        Raises:
            UserError: it was not exported.
        """
        if name not in self._graphs:
            raise UserError(
                f"The artifact has no graph {name!r}, only {', '.join(self._graphs)}; export all components."
            )
        first, *rest = self._graphs[name]
        output = self._run(first.name, {port: inputs[port] for port in first.inputs})
        for link in rest:
            handed, *others = link.inputs
            output = self._run(link.name, {handed: output} | {port: inputs[port] for port in others})
        return output
