"""Whether graphs answer what torch does, as ONNX Runtime runs them: each on golden inputs, all of them in a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...errors import UserError
from ...models.host import Host
from .golden import Golden, Inputs
from .picture import Painted, psnr, repaint


@dataclass(frozen=True)
class Tolerance:
    """What a precision may lose: the largest error of an output over its largest value, and a picture's PSNR in dB."""

    relative: float
    psnr: float


TOLERANCES = {"fp32": Tolerance(1e-4, 45.0), "fp16": Tolerance(2e-2, 30.0), "int4": Tolerance(1e-3, 38.0)}


@dataclass(frozen=True)
class Error:
    """The largest error of an output, and that over the largest value of the reference; the worst of all cases."""

    largest: float
    relative: float


@dataclass(frozen=True)
class Parity:
    """How far graphs are from torch: each graph's error, and a picture's PSNR in dB (None: the pictures are equal)."""

    graphs: dict[str, Error]
    psnr: float | None


class Graphs:
    """Runs graphs by name with ONNX Runtime on a CPU, the last one kept in memory."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._last: tuple[str, Any] | None = None

    def __call__(self, name: str, inputs: Inputs) -> NDArray[np.float32]:
        """The first output of a graph."""
        if self._last is None or self._last[0] != name:
            self._last = None
            self._last = name, _session(self._files[name])
        output: NDArray[np.float32] = self._last[1].run(None, inputs)[0]
        return output


def _session(file: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    # Without it a DequantizeLinear that is fused into its product would round the activations to 8 bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def errors(goldens: Sequence[Golden], graphs: Graphs) -> dict[str, Error]:
    """The error of each graph."""
    found: dict[str, Error] = {}
    for one in sorted(goldens, key=lambda one: one.graph):
        error = error_of(graphs(one.graph, one.inputs), one.output)
        found[one.graph] = max(error, found.get(one.graph, error), key=lambda error: _rank(error.relative))
    return found


def error_of(output: NDArray[np.float32], reference: NDArray[np.float32]) -> Error:
    """NaN where either is not a number somewhere.

    Raises:
        ValueError: the shapes differ.
    """
    if output.shape != reference.shape:
        raise ValueError(f"an output is {output.shape}, where torch's is {reference.shape}")
    largest = float(np.abs(output - reference).max())
    return Error(largest, largest / float(np.abs(reference).max()))


def measure(goldens: Sequence[Golden], painted: Painted, host: Host, graphs: Graphs) -> Parity:
    """How far graphs are from torch's answers and from its picture."""
    found = errors(goldens, graphs)
    return Parity(found, psnr(painted.pixels, repaint(painted, host, graphs)))


def check(found: Parity, tolerance: Tolerance) -> None:
    """Raises UserError where a graph or the picture is further from torch than a precision may be."""
    for name, error in found.graphs.items():
        if not error.relative <= tolerance.relative:
            raise UserError(
                f"The graph {name} is off by {error.relative:.2g} of torch's largest output, where "
                f"{tolerance.relative:.2g} is allowed; nothing was published."
            )
    if found.psnr is not None and not found.psnr >= tolerance.psnr:
        raise UserError(
            f"The picture painted by the graphs is {found.psnr:.1f} dB from torch's, where {tolerance.psnr:.0f} dB is "
            "the least; nothing was published."
        )


def _rank(relative: float) -> float:
    """NaN is worst."""
    return np.inf if np.isnan(relative) else relative
