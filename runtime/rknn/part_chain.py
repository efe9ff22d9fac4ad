"""Runs graphs as chains of parts: the output of each part is the first input of the next one."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError

Arrays = dict[str, NDArray[Any]]
RunPart = Callable[[str, Arrays], NDArray[np.float32]]  # by the part's name


@dataclass(frozen=True)
class PartRef:
    """A part of a graph.

    Attributes:
        name: Name of the part.
        inputs: Names of its inputs, in order. In all parts but the first, the first input is the output of the part
            before; all others are inputs of the graph.
    """

    name: str
    inputs: tuple[str, ...]


class ChainedGraphs:
    """Runs graphs by name, part after part.

    Args:
        graphs: The parts of each graph, in order.
        run_part: Runs a part by name.
    """

    def __init__(self, graphs: Mapping[str, Sequence[PartRef]], run_part: RunPart) -> None:
        self._graphs, self._run_part = graphs, run_part

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        """Returns the output of a graph.

        Raises:
            UserError: The graph was not exported.
        """
        if name not in self._graphs:
            raise UserError(
                f"Graph {name!r} is not in pipeline.json, which lists {', '.join(self._graphs)}. Export all components."
            )
        first, *rest = self._graphs[name]
        output = self._run_part(first.name, {port: inputs[port] for port in first.inputs})
        for part in rest:
            chained_port, *graph_ports = part.inputs
            output = self._run_part(part.name, {chained_port: output} | {port: inputs[port] for port in graph_ports})
        return output


def dispatch_parts(npu_parts: Container[str], run_npu: RunPart, run_cpu: RunPart) -> RunPart:
    """Returns a function that runs a part on the NPU if it is one of `npu_parts`, and on the CPU otherwise."""

    def run_part(name: str, inputs: Arrays) -> NDArray[np.float32]:
        return (run_npu if name in npu_parts else run_cpu)(name, inputs)

    return run_part
