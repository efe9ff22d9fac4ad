"""Exports a pipeline to ONNX as a recipe says, unchecked, and says how long it traced; others measure it from outside.

python -m edgepress.benchmarks.exporting RECIPE MODEL OUTPUT TOLD.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

from .. import recipe as recipes
from ..export.onnx.export import export
from ..export.onnx.model import find


class Clock:
    """Notes when tracing goes on to the next graph."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def __call__(self, stage: str, done: int, _: int, /) -> None:
        if stage == "tracing" and done == len(self.moments):
            self.moments.append(perf_counter())


def main(recipe: str, model: str, output: str, told: str) -> None:
    clock = Clock()
    export(Path(model), Path(output), recipes.load(recipe).export, progress=clock, check=False)
    spans = zip(find(Path(model)).family.graphs, clock.moments[:-1], clock.moments[1:], strict=True)
    seconds: dict[str, float] = {}
    for graph, begun, ended in spans:
        seconds[graph.component] = seconds.get(graph.component, 0.0) + ended - begun
    Path(told).write_text(json.dumps(seconds), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
