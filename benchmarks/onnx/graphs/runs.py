"""Measures the time and memory of graphs. Every run is its own process; the variants are interleaved."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....common.progress import Progress
from ...common.process import measure_command


@dataclass(frozen=True)
class GraphRun:
    """One process that ran a graph.

    Attributes:
        seconds: Median time of a step.
        memory: Peak memory in bytes.
        output: The graph's output.
    """

    seconds: float
    memory: int
    output: NDArray[np.float32] = field(repr=False)


def run_graph(artifact: Path, graph: str, size: tuple[int, int], folder: Path) -> GraphRun:
    """Loads a graph in a new process and runs it several times. The first run does not count."""
    result = folder / "times"
    arguments = [str(argument) for argument in (artifact, graph, *size, result)]
    command = [sys.executable, "-m", "edgepress.benchmarks.onnx.single_graph", *arguments]
    cost = measure_command(command, folder / "run.log")
    seconds = json.loads(result.with_suffix(".json").read_text("utf-8"))["later"]
    return GraphRun(statistics.median(seconds), cost.peak_rss, np.load(result.with_suffix(".npy")))


def run_interleaved(
    artifacts: Mapping[str, Path], graph: str, size: tuple[int, int], rounds: int, folder: Path, progress: Progress
) -> dict[str, list[GraphRun]]:
    """Runs a graph of every variant once per round; returns the runs by variant."""
    runs: dict[str, list[GraphRun]] = {name: [] for name in artifacts}
    schedule = [name for _ in range(rounds) for name in artifacts]
    for number, name in enumerate(schedule):
        progress(f"running {graph}", number, len(schedule))
        runs[name].append(run_graph(artifacts[name], graph, size, folder))
    progress(f"running {graph}", len(schedule), len(schedule))
    return runs


def measure_idle_memory(folder: Path) -> int:
    """Returns the peak memory, in bytes, of a process that imports the runtime but loads no graph."""
    command = [sys.executable, "-c", "import edgepress.benchmarks.onnx.single_graph"]
    return measure_command(command, folder / "run.log").peak_rss


def format_spread(values: list[float], digits: int = 2) -> str:
    """Formats the median and the range."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def relative_error(output: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Returns the root mean square of the difference relative to that of the reference."""
    return float(np.linalg.norm(output - reference) / np.linalg.norm(reference))


def measure_disk_size(artifact: Path, graph: str | None = None) -> int:
    """Returns the size in bytes of a folder's graphs and weights, or of one graph and the files that it refers to."""
    files = artifact.glob("*") if graph is None else _referenced_files(artifact / f"{graph}.onnx")
    return sum(file.stat().st_size for file in files if file.suffix in (".onnx", ".data", ".safetensors"))


def _referenced_files(graph: Path) -> set[Path]:
    import onnx

    tensors = onnx.load(str(graph), load_external_data=False).graph.initializer
    locations = [entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"]
    return {graph, *(graph.parent / location for location in locations)}
