"""Building a part and looking at what came of it: the log, and the simulator's answers beside ONNX Runtime's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.rknn.chain import Arrays
from ...runtime.rknn.manifest import Recipe
from ...runtime.rknn.simulator import build, simulate
from ...runtime.rknn.toolkit import Toolkit
from .log import Layer, Report, read

WORST = 5  # layers that are named
NOT_FINITE = 2.0  # the error of a layer whose output is not finite: as far as a cosine can be
# A line of the analysis: [Operator] name, then cosine and distance of the whole so far and of the layer alone.
NUMBER = re.compile(r"-?\d+\.\d{5}|[a-z_]+")  # large ones touch the next column
LINE = re.compile(r"^\[(?P<operator>\w+)\] (?P<name>\S+)\s+(?P<numbers>.+)$")


@dataclass(frozen=True)
class Sample:
    """A part's inputs, in its order, and the output that its float ONNX gives for them."""

    inputs: Arrays
    output: NDArray[np.float32]


@dataclass(frozen=True)
class LayerError:
    """How far a layer's output is from the float one, by itself: 1 - cosine."""

    operator: str
    name: str
    error: float


@dataclass(frozen=True)
class Measured:
    """A built part.

    relative: the error's norm over the output's; the worst of all samples, as is the cosine. layers: by their own
    errors, the worst first; empty where they were not looked at. seconds: of the build. peak: bytes that the toolkit's
    process held at most so far, building and simulating.
    """

    report: Report
    relative: float
    cosine: float
    layers: tuple[LayerError, ...]
    seconds: float
    peak: int

    def described(self) -> dict[str, Any]:
        """In pipeline.json's words."""
        elsewhere = [f"{layer.operator} {layer.name}".strip() for layer in self.report.elsewhere]
        return {
            "operators": {"npu": len(self.report.layers) - len(elsewhere), "elsewhere": elsewhere},
            "faults": list(self.report.faults),
            "memory": {"weights": self.report.weights, "internal": self.report.internal},
            "simulated": {"relative": self.relative, "cosine": self.cosine},
            "worst": [asdict(layer) for layer in self.layers[:WORST]],
            "build": {"seconds": round(self.seconds, 1), "peak": self.peak},
        }


@dataclass(frozen=True)
class Files:
    """Of a part: its ONNX, the folder of its calibration samples, where it is quantized, and what is to be written.

    goldens: what it is simulated on.
    """

    onnx: Path
    samples: Path
    rknn: Path
    goldens: Sequence[Sample]


def measure(toolkit: Toolkit, name: str, files: Files, recipe: Recipe) -> Measured:
    """Builds a part and simulates it; its layers are not looked at.

    Raises:
        UserError: the toolkit refuses.
    """
    done = build(toolkit, name, files.onnx, recipe, files.samples, files.rknn)
    errors = [compare(simulate(toolkit, name, one.inputs), one.output) for one in files.goldens]
    return Measured(
        report=read(done.log),
        relative=max((relative for relative, _ in errors), key=_nan_is_most),
        cosine=min((cosine for _, cosine in errors), key=lambda cosine: -_nan_is_most(-cosine)),
        layers=(),
        seconds=done.seconds,
        peak=toolkit.call("hello").peak,
    )


def compare(found: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    """The error's norm over the norm of what is expected, and the cosine; NaN where what is found is not finite.

    Raises:
        ValueError: the shapes differ.
    """
    if found.shape != expected.shape:
        raise ValueError(f"the simulator answers {found.shape}, where {expected.shape} is expected")
    if not np.isfinite(found).all():
        return np.nan, np.nan
    one, other = found.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    norm = float(np.linalg.norm(other)) or 1.0
    cosine = float(one @ other) / ((float(np.linalg.norm(one)) or 1.0) * norm)
    return float(np.linalg.norm(one - other)) / norm, cosine


def analyse(toolkit: Toolkit, name: str, inputs: Arrays) -> tuple[LayerError, ...]:
    """How far the layers of a built part are from their float outputs, each fed with float inputs; the worst first."""
    folder = toolkit.folder / "analysis"
    files = []
    for port, array in inputs.items():
        file = toolkit.folder / f"{port}.npy"
        np.save(file, np.asarray(array, np.float32))
        files.append(str(file))
    toolkit.call("analyse", model=name, inputs=files, folder=str(folder))
    return tuple(layer_errors((folder / "error_analysis.txt").read_text("utf-8")))


def layer_errors(analysis: str) -> list[LayerError]:
    """Reads the toolkit's analysis; the worst layers first."""
    rows = [row for line in analysis.splitlines() if (row := LINE.match(line.strip()))]
    found = [LayerError(row["operator"], row["name"], error) for row in rows if (error := _error(row)) is not None]
    return sorted(found, key=lambda layer: layer.error, reverse=True)


def _error(row: re.Match[str]) -> float | None:
    """Of a layer by itself, the third number of its line; None where there is none to tell, as outputs are zeros."""
    words = NUMBER.findall(row["numbers"])
    if row["operator"] == "Input" or len(words) < 4 or "f_zero" in words:
        return None
    return NOT_FINITE if words[2].startswith("q_") or words[2] == "nan" else 1 - float(words[2])


def _nan_is_most(value: float) -> float:
    return np.inf if np.isnan(value) else value


def elsewhere(layers: Sequence[Layer]) -> str:
    """Layers that are not on the NPU, in a few words."""
    return ", ".join(f"{layer.operator} {layer.name}".strip() for layer in layers[:3])
