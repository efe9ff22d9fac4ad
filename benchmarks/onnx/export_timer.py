"""Exports a pipeline to ONNX without verifying it, and writes how long tracing took. Run as a process that is measured.

    python -m edgepress.benchmarks.onnx.export_timer RECIPE MODEL OUTPUT RESULT.json

RESULT.json holds the seconds of tracing by component.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

from ...export.graph.source_model import open_source
from ...export.onnx.exporter import export_onnx
from ...recipes.loader import load_recipe


class TracingTimer:
    """Progress callback that records when each graph begins to be traced, and when tracing ends."""

    def __init__(self) -> None:
        self.timestamps: list[float] = []

    def __call__(self, stage: str, done: int, _: int, /) -> None:
        if stage == "tracing" and done == len(self.timestamps):
            self.timestamps.append(perf_counter())


def main(recipe: str, model: str, output: str, result: str) -> None:
    timer = TracingTimer()
    export_onnx(Path(model), Path(output), load_recipe(recipe).export, progress=timer, verify=False)
    spans = zip(open_source(Path(model)).family.graphs, timer.timestamps[:-1], timer.timestamps[1:], strict=True)
    seconds: dict[str, float] = {}
    for graph, start, end in spans:
        seconds[graph.component] = seconds.get(graph.component, 0.0) + end - start
    Path(result).write_text(json.dumps(seconds), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
