"""Time and memory of a graph: every run a process of its own, seen from outside, the variants in turns."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...progress import Progress
from ..process import measured


@dataclass(frozen=True)
class Ran:
    """One process: median seconds of a step, peak memory in bytes, and the output."""

    seconds: float
    memory: int
    output: NDArray[np.float32] = field(repr=False)


def run(artifact: Path, graph: str, size: tuple[int, int], folder: Path) -> Ran:
    """Loads a graph and runs it some times; the first is not counted."""
    told = folder / "told"
    words = [sys.executable, "-m", "edgepress.benchmarks.steps", str(artifact), graph, *map(str, size), str(told)]
    cost = measured(words, folder / "run.log")
    seconds = json.loads(told.with_suffix(".json").read_text("utf-8"))["later"]
    return Ran(statistics.median(seconds), cost.peak_rss, np.load(told.with_suffix(".npy")))


def in_turns(
    artifacts: Mapping[str, Path], graph: str, size: tuple[int, int], rounds: int, folder: Path, progress: Progress
) -> dict[str, list[Ran]]:
    """Every variant once a round."""
    found: dict[str, list[Ran]] = {name: [] for name in artifacts}
    turns = [name for _ in range(rounds) for name in artifacts]
    for number, name in enumerate(turns):
        progress(f"running {graph}", number, len(turns))
        found[name].append(run(artifacts[name], graph, size, folder))
    progress(f"running {graph}", len(turns), len(turns))
    return found


def idle(folder: Path) -> int:
    """Peak memory, in bytes, of a process that imports what runs graphs, and runs none."""
    return measured([sys.executable, "-c", "import edgepress.benchmarks.steps"], folder / "run.log").peak_rss


def spread(values: list[float], digits: int = 2) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def relative_error(output: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Root mean square of the difference over that of the reference."""
    return float(np.linalg.norm(output - reference) / np.linalg.norm(reference))


def disk(artifact: Path, graph: str | None = None) -> int:
    """Bytes of a folder's graphs and weights, or of one graph and what it reads."""
    files = artifact.glob("*") if graph is None else _read_by(artifact / f"{graph}.onnx")
    return sum(file.stat().st_size for file in files if file.suffix in (".onnx", ".data", ".safetensors"))


def _read_by(graph: Path) -> set[Path]:
    import onnx

    tensors = onnx.load(str(graph), load_external_data=False).graph.initializer
    named = [entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"]
    return {graph, *(graph.parent / name for name in named)}
