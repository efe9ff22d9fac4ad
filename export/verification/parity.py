"""Compares graphs in ONNX Runtime with torch: each graph on golden inputs, and all of them by the image they make."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ...models.base.reference import Arrays, GoldenIO
from ...models.base.tiling import DecoderStages
from ...numerics.psnr import compute_psnr
from ...runtime.onnx.sessions import create_session
from ...runtime.onnx.shape_buckets import BucketedGraph, select_bucket
from ...runtime.vae_tiling import decode_in_half_tiles, name_in_tiles
from ...storage.checkpoint import Checkpoint
from .fp16_sums import Fp16Sums
from .image_parity import ReferenceImage, generate_with_graphs


@dataclass(frozen=True)
class Tolerance:
    """What a precision may lose.

    Attributes:
        relative: The largest error of an output over its largest value.
        psnr: The lowest PSNR of an image in dB.
    """

    relative: float
    psnr: float


TOLERANCES = {
    "fp32": Tolerance(1e-4, 45.0),
    "fp16": Tolerance(1e-2, 40.0),  # the demo: 1.2e-3 and 71 dB, with activations in float32 as x86 computes them
    # Without integer products, quantized weights are other weights in the arithmetic of fp32. The demo: 7e-7 and 90 dB.
    "int4": Tolerance(1e-4, 38.0),
    "w8a8": Tolerance(1e-4, 38.0),
}
# For graphs with integer products, whatever their layers lose. The transformer's golden output is one denoising step,
# where noise would have an error of 1 or more. Over all steps a large model may generate another image of the same
# quality, at 16 to 20 dB (recipes), so the limit of an image only excludes noise: its mean square error is at least
# 255²/12, which is 10.8 dB. The demo's graphs have an error of 1.1e-2, and its image 53.8 dB.
INT8_TOLERANCE = Tolerance(0.25, 15.0)

SAFETY_FACTOR = 4.0  # on the error of quantized activations, which was measured on other tokens


@dataclass(frozen=True)
class OutputError:
    """The error of an output, the worst over all golden inputs.

    Attributes:
        max_abs: The largest absolute error.
        relative: That over the largest absolute value of the reference.
    """

    max_abs: float
    relative: float


@dataclass(frozen=True)
class Parity:
    """The difference between graphs and torch.

    Attributes:
        graphs: The error of each graph by name.
        psnr: PSNR of an image in dB; None where the images are identical, or not compared.
        image_compared: Whether images were compared, which needs a host.
        fp16_sums: For graphs in float16, the product of each that loses most where sums are in float16.
    """

    graphs: dict[str, OutputError]
    psnr: float | None
    image_compared: bool = True
    fp16_sums: Mapping[str, Fp16Sums] = field(default_factory=dict)

    def __str__(self) -> str:
        width = max(map(len, [*self.graphs, "graph"]))
        lines = [f"{'graph':{width}}  max abs error  relative error"]
        lines += [f"{name:{width}}  {e.max_abs:13.2g}  {e.relative:14.2g}" for name, e in self.graphs.items()]
        if self.fp16_sums:
            lines.append(f"where sums are in float16, as on arm64 CPUs: {self.fp16_summary}")
        return "\n".join([*lines, f"image: {self.image_summary}"])

    @property
    def fp16_summary(self) -> str:
        """What the worst product of all graphs loses where sums are in float16, in words."""
        graph, sums = max(self.fp16_sums.items(), key=lambda entry: entry[1].loss)
        loss = "overflows" if sums.relative_error is None else f"is {100 * sums.relative_error:.2g} % off"
        return f"{sums.product} of {graph}, a sum of {sums.length} terms, {loss}"

    @property
    def image_summary(self) -> str:
        """The PSNR of the image in words."""
        if not self.image_compared:
            return "not compared, as edgepress cannot generate images with this pipeline's graphs"
        return "identical" if self.psnr is None else f"{self.psnr:.1f} dB PSNR"


class OrtRunner:
    """Runs graphs by name with ONNX Runtime on the CPU. The last graph stays in memory.

    Args:
        files: Graph files by name.
        graphs: The files of each graph of fixed shapes; None if every file is a graph of that name.
        accuracy_level: How products with dequantized INT4 weights are computed: 0 in floats, 4 in int8.
    """

    def __init__(
        self, files: Mapping[str, Path], graphs: Mapping[str, BucketedGraph] | None = None, accuracy_level: int = 0
    ) -> None:
        self._files, self._graphs, self._accuracy_level = files, graphs, accuracy_level
        self._name = ""
        self._session: Any = None

    def __contains__(self, name: str) -> bool:
        return name in (self._files if self._graphs is None else self._graphs)

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        """Returns the first output of a graph."""
        return self.run(name, inputs)[0]

    def run(self, name: str, inputs: Arrays) -> list[NDArray[np.float32]]:
        """Returns all outputs of a graph, in order."""
        return list(self.run_named(name, inputs).values())

    def run_named(self, name: str, inputs: Arrays) -> Arrays:
        """Returns all outputs of a graph by name, in order."""
        session = self._load(name if self._graphs is None else select_bucket(self._graphs, name, inputs))
        return dict(zip((port.name for port in session.get_outputs()), session.run(None, inputs), strict=True))

    def _load(self, name: str) -> Any:
        if self._name != name:
            self._name, self._session = "", None  # frees the last graph first
            self._name, self._session = name, create_session(self._files[name], accuracy_level=self._accuracy_level)
        return self._session


def measure_errors(goldens: Sequence[GoldenIO], graphs: OrtRunner) -> dict[str, OutputError]:
    """Returns the error of each graph, by its worst output."""
    worst: dict[str, OutputError] = {}
    for golden in sorted(goldens, key=lambda golden: golden.graph):
        outputs = graphs.run_named(golden.graph, golden.inputs)
        errors = [compute_error(outputs[port], expected) for port, expected in golden.outputs.items()]
        previous = [worst[golden.graph]] if golden.graph in worst else []
        worst[golden.graph] = max(previous + errors, key=lambda error: _nan_as_inf(error.relative))
    return worst


def compute_error(output: NDArray[np.float32], reference: NDArray[np.float32]) -> OutputError:
    """Returns the error of an output, NaN where either array contains NaN.

    Raises:
        ValueError: The shapes differ.
    """
    if output.shape != reference.shape:
        raise ValueError(f"an output has the shape {output.shape}, torch's {reference.shape}")
    max_abs, scale = float(np.abs(output - reference).max()), float(np.abs(reference).max())
    if scale == 0:  # where torch returns zeros, anything else is infinitely wrong
        return OutputError(max_abs, max_abs * math.inf if max_abs else 0.0)
    return OutputError(max_abs, max_abs / scale)


def measure_parity(goldens: Sequence[GoldenIO], reference_image: ReferenceImage | None, graphs: OrtRunner) -> Parity:
    """Compares graphs with torch's outputs, and with its image if there is one."""
    errors = measure_errors(goldens, graphs)
    if reference_image is None:
        return Parity(errors, None, image_compared=False)
    host = reference_image.host
    stages = host.decoder_stages
    if stages is not None and stages.first_graph in graphs:
        golden = next(golden for golden in goldens if golden.graph == host.decoder_graph)
        errors[name_in_tiles(host.decoder_graph)] = _measure_tiled_error(golden, host.decoder_graph, stages, graphs)
    return Parity(errors, compute_psnr(reference_image.pixels, generate_with_graphs(reference_image, graphs)))


def _measure_tiled_error(golden: GoldenIO, decoder: str, stages: DecoderStages, graphs: OrtRunner) -> OutputError:
    """Returns the error of an image decoded in tiles."""
    (expected,) = golden.outputs.values()
    image = decode_in_half_tiles(graphs.run, decoder, stages, golden.inputs, expected.shape[2:])
    return compute_error(image, expected)


def require_parity(parity: Parity, tolerance: Tolerance) -> None:
    """Raises UserError where a graph or the image exceeds a tolerance."""
    for name, error in parity.graphs.items():
        if not error.relative <= tolerance.relative:
            raise UserError(
                f"Graph '{name}' deviates from torch by {error.relative:.2g} of the largest output, more than the "
                f"allowed {tolerance.relative:.2g}, so nothing was published. Try another --precision."
            )
    if parity.psnr is not None and not parity.psnr >= tolerance.psnr:
        raise UserError(
            f"The image generated by the graphs has a PSNR of {parity.psnr:.1f} dB against torch, less than the "
            f"required {tolerance.psnr:.0f} dB, so nothing was published. Try another --precision."
        )


def compute_rounding_tolerance(solutions: Iterable[Checkpoint]) -> Tolerance:
    """Returns what quantized activations may cost a graph, at most INT8_TOLERANCE.

    The errors of a component's layers, relative to the power of their outputs, are added as if they were independent
    and reached the output in full.
    """
    powers = [sum(solution.load_config()["errors"].values()) for solution in solutions]
    return Tolerance(min(SAFETY_FACTOR * math.sqrt(max(powers)), INT8_TOLERANCE.relative), INT8_TOLERANCE.psnr)


def _nan_as_inf(value: float) -> float:
    return np.inf if np.isnan(value) else value
