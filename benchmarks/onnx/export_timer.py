"""Exports a pipeline to ONNX as a recipe says, unchecked, and says how long it traced; others measure it from outside.

python -m edgepress.benchmarks.onnx.export_timer RECIPE MODEL OUTPUT TOLD.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

from ...export.graph.source_model import open_source
from ...export.onnx.exporter import export_onnx
from ...recipes import loader


class TracingTimer:
    """Notes when tracing goes on to the next graph."""

    def __init__(self) -> None:
        self.timestamps: list[float] = []

    def __call__(self, stage: str, done: int, _: int, /) -> None:
        if stage == "tracing" and done == len(self.timestamps):
            self.timestamps.append(perf_counter())


def main(recipe: str, model: str, output: str, result: str) -> None:
    timer = TracingTimer()
    export_onnx(Path(model), Path(output), loader.load_recipe(recipe).export, progress=timer, verify=False)
    spans = zip(open_source(Path(model)).family.graphs, timer.timestamps[:-1], timer.timestamps[1:], strict=True)
    seconds: dict[str, float] = {}
    for graph, begun, ended in spans:
        seconds[graph.component] = seconds.get(graph.component, 0.0) + ended - begun
    Path(result).write_text(json.dumps(seconds), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
