"""Whether graphs answer what torch does, as ONNX Runtime runs them: each on golden inputs, all of them in a picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ...common.errors import UserError
from ...models.base.host import Host
from ...models.base.reference import Arrays, GoldenIO
from ...runtime.onnx.shape_buckets import BucketedGraph, select_bucket
from ...runtime.vae_tiling import make_tiled_decoder
from ...storage.checkpoint import Checkpoint
from .image_parity import ReferenceImage, compute_psnr, generate_with_graphs


@dataclass(frozen=True)
class Tolerance:
    """What a precision may lose: the largest error of an output over its largest value, and a picture's PSNR in dB."""

    relative: float
    psnr: float


TOLERANCES = {
    "fp32": Tolerance(1e-4, 45.0),
    "fp16": Tolerance(1e-2, 40.0),  # the demo's: 1.2e-3 and 71 dB, with activations in float32 as x86 computes them
    # Without integers, codes are other weights in the same arithmetic as fp32's: the demo's are 7e-7 off, and 90 dB.
    "int4": Tolerance(1e-4, 38.0),
    "w8a8": Tolerance(1e-4, 38.0),
}
# Of graphs that multiply in 8-bit integers, whatever their layers lose. The transformer's golden output is one
# denoising step, where noise would be off by 1 or more. Over all steps a large model may paint another picture of the
# same worth, at 16 to 20 dB (recipes), so a picture's limit is only what noise cannot reach: its mean square error is
# 255²/12 or more, which is 10.8 dB. The demo's graphs are 1.1e-2 off, and its picture 53.8 dB.
INT8_TOLERANCE = Tolerance(0.25, 15.0)

SAFETY_FACTOR = 4.0  # times what rounding may cost: tokens differ from those that it was measured on


@dataclass(frozen=True)
class OutputError:
    """The largest error of an output, and that over the largest value of the reference; the worst of all cases."""

    max_abs: float
    relative: float


@dataclass(frozen=True)
class Parity:
    """How far graphs are from torch: each graph's error, and a picture's PSNR in dB (None: the pictures are equal).

    painted: whether there is such a picture, which takes a host.
    """

    graphs: dict[str, OutputError]
    psnr: float | None
    image_compared: bool = True


class OrtRunner:
    """Runs graphs by name with ONNX Runtime on a CPU, the last one kept in memory.

    Args:
        files: by name. graphs: of fixed shapes, which files they have.
        accuracy_level: of products of dequantized 4-bit weights; 0 multiplies in floats, 4 in 8-bit integers.
    """

    def __init__(
        self, files: Mapping[str, Path], graphs: Mapping[str, BucketedGraph] | None = None, accuracy_level: int = 0
    ) -> None:
        self._files, self._graphs, self._accuracy_level = files, graphs, accuracy_level
        self._session: tuple[str, Any] | None = None

    def __contains__(self, name: str) -> bool:
        return name in (self._files if self._graphs is None else self._graphs)

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        """The first output of a graph."""
        return next(iter(self.run(name, inputs).values()))

    def run(self, name: str, inputs: Arrays) -> Arrays:
        """The outputs of a graph by their names, in their order."""
        if self._graphs is not None:
            name = select_bucket(self._graphs, name, inputs)
        if self._session is None or self._session[0] != name:
            self._session = None
            self._session = name, _create_session(self._files[name], self._accuracy_level)
        session = self._session[1]
        return dict(zip((port.name for port in session.get_outputs()), session.run(None, inputs), strict=True))


def _create_session(file: Path, accuracy_level: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", str(accuracy_level))
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def measure_errors(goldens: Sequence[GoldenIO], graphs: OrtRunner) -> dict[str, OutputError]:
    """The error of each graph, of its worst output."""
    worst: dict[str, OutputError] = {}
    for one in sorted(goldens, key=lambda one: one.graph):
        answers = graphs.run(one.graph, one.inputs)
        errors = [compute_error(answers[port], expected) for port, expected in one.outputs.items()]
        before = [worst[one.graph]] if one.graph in worst else []
        worst[one.graph] = max(before + errors, key=lambda error: _nan_as_inf(error.relative))
    return worst


def compute_error(output: NDArray[np.float32], reference: NDArray[np.float32]) -> OutputError:
    """NaN where either is not a number somewhere.

    Raises:
        ValueError: the shapes differ.
    """
    if output.shape != reference.shape:
        raise ValueError(f"an output is {output.shape}, where torch's is {reference.shape}")
    largest = float(np.abs(output - reference).max())
    return OutputError(largest, largest / float(np.abs(reference).max()))


def measure_parity(goldens: Sequence[GoldenIO], reference_image: ReferenceImage | None, graphs: OrtRunner) -> Parity:
    """How far graphs are from torch's answers and from its picture, where one was painted."""
    errors = measure_errors(goldens, graphs)
    if reference_image is None:
        return Parity(errors, None, image_compared=False)
    decoder = reference_image.host.decoder_graph
    if reference_image.host.decoder_stages.first_graph in graphs:
        golden = next(one for one in goldens if one.graph == decoder)
        errors[f"{decoder} in tiles"] = _measure_tiled_error(golden, reference_image.host, graphs)
    return Parity(errors, compute_psnr(reference_image.pixels, generate_with_graphs(reference_image, graphs)))


def _measure_tiled_error(golden: GoldenIO, host: Host, graphs: OrtRunner) -> OutputError:
    """The error of a picture that is decoded in tiles of half its longer side."""
    (expected,) = golden.outputs.values()

    def run(name: str, inputs: Arrays) -> list[NDArray[np.float32]]:
        return list(graphs.run(name, inputs).values())

    tiled = make_tiled_decoder(
        run, host.decoder_graph, host.decoder_stages, max(expected.shape[2:]) // 2, tolerance=0.0
    )
    return compute_error(tiled(host.decoder_graph, golden.inputs), expected)


def require_parity(parity: Parity, tolerance: Tolerance) -> None:
    """Raises UserError where a graph or the picture is further from torch than a precision may be."""
    for name, error in parity.graphs.items():
        if not error.relative <= tolerance.relative:
            raise UserError(
                f"The graph {name} is off by {error.relative:.2g} of torch's largest output, where "
                f"{tolerance.relative:.2g} is allowed; nothing was published."
            )
    if parity.psnr is not None and not parity.psnr >= tolerance.psnr:
        raise UserError(
            f"The picture painted by the graphs is {parity.psnr:.1f} dB from torch's, where {tolerance.psnr:.0f} dB is "
            "the least; nothing was published."
        )


def compute_rounding_tolerance(solutions: Iterable[Checkpoint]) -> Tolerance:
    """What rounding activations may cost a graph, and never more than what integers may at all.

    The errors of a component's linears, shares of their outputs' power, are added as if they were independent and all
    of them reached the output in full.
    """
    powers = [sum(solution.load_config()["errors"].values()) for solution in solutions]
    return Tolerance(min(SAFETY_FACTOR * math.sqrt(max(powers)), INT8_TOLERANCE.relative), INT8_TOLERANCE.psnr)


def _nan_as_inf(relative: float) -> float:
    """NaN is worst."""
    return np.inf if np.isnan(relative) else relative
