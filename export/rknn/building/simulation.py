"""Builds a part, simulates it, and compares the output with that of ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....runtime.rknn.exported import BuildConfig
from ....runtime.rknn.part_chain import Arrays
from ....runtime.rknn.simulator import build_model, simulate
from ....runtime.rknn.toolkit import Toolkit
from .build_log import BuildLog, BuiltLayer, parse_build_log

NOT_FINITE_ERROR = 2.0  # of a layer whose output is not finite: the largest value of 1 - cosine
# A line of the analysis: [Operator] name, then cosine and distance of the model so far, and of the layer alone.
ANALYSIS_VALUE = re.compile(r"-?\d+\.\d{5}|[a-z_]+")  # large ones touch the next column
ANALYSIS_LINE = re.compile(r"^\[(?P<operator>\w+)\] (?P<name>\S+)\s+(?P<values>.+)$")


@dataclass(frozen=True)
class GoldenSample:
    """A call of a part.

    Attributes:
        inputs: Arrays by input name, in the order of the part's inputs.
        output: The output of its float ONNX, float32.
    """

    inputs: Arrays
    output: NDArray[np.float32]


@dataclass(frozen=True)
class LayerError:
    """The error of a layer alone, with float inputs: 1 - cosine of its output and the float one."""

    operator: str
    name: str
    error: float


@dataclass(frozen=True)
class BuildMeasurement:
    """The measurements of a built part.

    Attributes:
        build_log: The content of the build's log.
        relative_error: Norm of the error over that of the output, the largest of all samples; NaN if not finite.
        cosine: Cosine of the outputs, the smallest of all samples; NaN if not finite.
        layer_errors: Errors of single layers, the largest first; empty if they were not analyzed.
        build_seconds: Time of the build.
        peak_bytes: Peak memory of the toolkit's process so far, building and simulating.
    """

    build_log: BuildLog
    relative_error: float
    cosine: float
    layer_errors: tuple[LayerError, ...]
    build_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class BuildRequest:
    """What is built and simulated.

    Attributes:
        onnx_file: Float ONNX of the part.
        samples_folder: Folder of its calibration samples; read if the build quantizes.
        rknn_file: Path the built part is written to.
        golden_samples: Calls it is simulated on.
    """

    onnx_file: Path
    samples_folder: Path
    rknn_file: Path
    golden_samples: Sequence[GoldenSample]


def build_and_simulate(toolkit: Toolkit, name: str, request: BuildRequest, config: BuildConfig) -> BuildMeasurement:
    """Builds a part and simulates it on its golden samples. Its layers are not analyzed.

    Args:
        toolkit: The toolkit that builds; the model stays in it under `name`.
        name: Name of the part.
        request: What is built and simulated.
        config: How it is built.

    Raises:
        UserError: The toolkit fails.
    """
    reply = build_model(toolkit, name, request.onnx_file, config, request.samples_folder, request.rknn_file)
    errors = [
        compare_outputs(simulate(toolkit, name, sample.inputs), sample.output) for sample in request.golden_samples
    ]
    return BuildMeasurement(
        build_log=parse_build_log(reply.log),
        relative_error=max((relative for relative, _ in errors), key=_nan_to_infinity),
        cosine=min((cosine for _, cosine in errors), key=lambda cosine: -_nan_to_infinity(-cosine)),
        layer_errors=(),
        build_seconds=reply.seconds,
        peak_bytes=toolkit.call("version").peak_bytes,
    )


def compare_outputs(output: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    """Compares an output with the expected one of the same shape.

    Returns:
        Norm of the error over the norm of the expected output, and the cosine; both NaN if the output is not finite.

    Raises:
        ValueError: The shapes differ.
    """
    if output.shape != expected.shape:
        raise ValueError(f"The simulator returned shape {output.shape}, but {expected.shape} was expected.")
    if not np.isfinite(output).all():
        return np.nan, np.nan
    x, y = output.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    norm = float(np.linalg.norm(y)) or 1.0
    cosine = float(x @ y) / ((float(np.linalg.norm(x)) or 1.0) * norm)
    return float(np.linalg.norm(x - y)) / norm, cosine


def analyze_layers(toolkit: Toolkit, name: str, inputs: Arrays) -> tuple[LayerError, ...]:
    """Measures the error of each layer of a built part, with float inputs; the largest errors first."""
    folder = toolkit.folder / "analysis"
    files = []
    for port, array in inputs.items():
        file = toolkit.folder / f"{port}.npy"
        np.save(file, np.asarray(array, np.float32))
        files.append(str(file))
    toolkit.call("analyze", model=name, inputs=files, folder=str(folder))
    return tuple(parse_layer_errors((folder / "error_analysis.txt").read_text("utf-8")))


def parse_layer_errors(analysis: str) -> list[LayerError]:
    """Parses the toolkit's analysis; the largest errors first."""
    rows = [row for line in analysis.splitlines() if (row := ANALYSIS_LINE.match(line.strip()))]
    layers = [
        LayerError(row["operator"], row["name"], error) for row in rows if (error := _parse_error(row)) is not None
    ]
    return sorted(layers, key=lambda layer: layer.error, reverse=True)


def _parse_error(row: re.Match[str]) -> float | None:
    """Returns the error of the layer alone, from the third value of its line; None if its output is all zeros."""
    values = ANALYSIS_VALUE.findall(row["values"])
    if row["operator"] == "Input" or len(values) < 4 or "f_zero" in values:
        return None
    return NOT_FINITE_ERROR if values[2].startswith("q_") or values[2] == "nan" else 1 - float(values[2])


def _nan_to_infinity(value: float) -> float:
    return np.inf if np.isnan(value) else value


def format_layers(layers: Sequence[BuiltLayer]) -> str:
    """Names the first three layers."""
    return ", ".join(f"{layer.operator} {layer.name}".strip() for layer in layers[:3])
