"""Building a part and looking at what came of it: the log, and the simulator's answers beside ONNX Runtime's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....runtime.rknn.exported import BuildConfig
from ....runtime.rknn.part_chain import Arrays
from ....runtime.rknn.simulator import build_model, simulate
from ....runtime.rknn.toolkit import Toolkit
from .build_log import BuildLog, BuiltLayer, parse_build_log

NUM_WORST_LAYERS = 5  # layers that are named
NOT_FINITE_ERROR = 2.0  # the error of a layer whose output is not finite: as far as a cosine can be
# A line of the analysis: [Operator] name, then cosine and distance of the whole so far and of the layer alone.
ANALYSIS_VALUE = re.compile(r"-?\d+\.\d{5}|[a-z_]+")  # large ones touch the next column
ANALYSIS_LINE = re.compile(r"^\[(?P<operator>\w+)\] (?P<name>\S+)\s+(?P<numbers>.+)$")


@dataclass(frozen=True)
class GoldenSample:
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
class BuildMeasurement:
    """A built part.

    relative: the error's norm over the output's; the worst of all samples, as is the cosine. layers: by their own
    errors, the worst first; empty where they were not looked at. seconds: of the build. peak: bytes that the toolkit's
    process held at most so far, building and simulating.
    """

    build_log: BuildLog
    relative_error: float
    cosine: float
    layer_errors: tuple[LayerError, ...]
    build_seconds: float
    peak_bytes: int

    def to_json(self) -> dict[str, Any]:
        """In pipeline.json's words."""
        elsewhere = [f"{layer.operator} {layer.name}".strip() for layer in self.build_log.layers_not_on_npu]
        return {
            "operators": {"npu": len(self.build_log.layers) - len(elsewhere), "elsewhere": elsewhere},
            "faults": list(self.build_log.errors),
            "memory": {"weights": self.build_log.weight_bytes, "internal": self.build_log.internal_bytes},
            "simulated": {"relative": self.relative_error, "cosine": self.cosine},
            "worst": [asdict(layer) for layer in self.layer_errors[:NUM_WORST_LAYERS]],
            "build": {"seconds": round(self.build_seconds, 1), "peak": self.peak_bytes},
        }


@dataclass(frozen=True)
class BuildRequest:
    """Of a part: its ONNX, the folder of its calibration samples, where it is quantized, and what is to be written.

    goldens: what it is simulated on.
    """

    onnx_file: Path
    samples_folder: Path
    rknn_file: Path
    golden_samples: Sequence[GoldenSample]


def build_and_simulate(
    toolkit: Toolkit, name: str, request: BuildRequest, build_config: BuildConfig
) -> BuildMeasurement:
    """Builds a part and simulates it; its layers are not looked at.

    Raises:
        UserError: the toolkit refuses.
    """
    reply = build_model(toolkit, name, request.onnx_file, build_config, request.samples_folder, request.rknn_file)
    errors = [compare_outputs(simulate(toolkit, name, one.inputs), one.output) for one in request.golden_samples]
    return BuildMeasurement(
        build_log=parse_build_log(reply.log),
        relative_error=max((relative for relative, _ in errors), key=_nan_to_infinity),
        cosine=min((cosine for _, cosine in errors), key=lambda cosine: -_nan_to_infinity(-cosine)),
        layer_errors=(),
        build_seconds=reply.seconds,
        peak_bytes=toolkit.call("hello").peak_bytes,
    )


def compare_outputs(output: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    """The error's norm over the norm of what is expected, and the cosine; NaN where what is found is not finite.

    Raises:
        ValueError: the shapes differ.
    """
    if output.shape != expected.shape:
        raise ValueError(f"the simulator answers {output.shape}, where {expected.shape} is expected")
    if not np.isfinite(output).all():
        return np.nan, np.nan
    one, other = output.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    norm = float(np.linalg.norm(other)) or 1.0
    cosine = float(one @ other) / ((float(np.linalg.norm(one)) or 1.0) * norm)
    return float(np.linalg.norm(one - other)) / norm, cosine


def analyze_layers(toolkit: Toolkit, name: str, inputs: Arrays) -> tuple[LayerError, ...]:
    """How far the layers of a built part are from their float outputs, each fed with float inputs; the worst first."""
    folder = toolkit.folder / "analysis"
    files = []
    for port, array in inputs.items():
        file = toolkit.folder / f"{port}.npy"
        np.save(file, np.asarray(array, np.float32))
        files.append(str(file))
    toolkit.call("analyse", model=name, inputs=files, folder=str(folder))
    return tuple(parse_layer_errors((folder / "error_analysis.txt").read_text("utf-8")))


def parse_layer_errors(analysis: str) -> list[LayerError]:
    """Reads the toolkit's analysis; the worst layers first."""
    rows = [row for line in analysis.splitlines() if (row := ANALYSIS_LINE.match(line.strip()))]
    found = [
        LayerError(row["operator"], row["name"], error)
        for row in rows
        if (error := _parse_layer_error(row)) is not None
    ]
    return sorted(found, key=lambda layer: layer.error, reverse=True)


def _parse_layer_error(row: re.Match[str]) -> float | None:
    """Of a layer by itself, the third number of its line; None where there is none to tell, as outputs are zeros."""
    words = ANALYSIS_VALUE.findall(row["numbers"])
    if row["operator"] == "Input" or len(words) < 4 or "f_zero" in words:
        return None
    return NOT_FINITE_ERROR if words[2].startswith("q_") or words[2] == "nan" else 1 - float(words[2])


def _nan_to_infinity(value: float) -> float:
    return np.inf if np.isnan(value) else value


def format_layers(layers: Sequence[BuiltLayer]) -> str:
    """Layers that are not on the NPU, in a few words."""
    return ", ".join(f"{layer.operator} {layer.name}".strip() for layer in layers[:3])
