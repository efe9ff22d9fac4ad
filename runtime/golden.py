"""Runs exported graphs on their golden inputs, and compares the outputs with those that torch computed at export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..common.cpu_features import CpuFeatures, read_cpu_features
from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..models.base.host import load_host
from ..models.registry import get_family
from ..storage.pipeline_config import OnnxPipelineConfig, read_onnx_config
from .malformed import reject_malformed
from .onnx.exported import ExportedOnnx, load_exported_onnx
from .onnx.sessions import SessionPool
from .onnx.shape_buckets import Arrays, select_bucket
from .vae_tiling import decode_in_half_tiles, name_in_tiles

GOLDEN_FOLDER = "golden"
PROGRESS_STAGE = "running graphs"
# Errors that other processors add: they sum in another order, and the error at export was measured on one of them.
# Integer products flip roundings of activations, and arm64 processors with float16 arithmetic sum in it (docs/onnx.md).
ERROR_FACTOR = 4.0
FLOAT_FLOOR, INTEGER_FLOOR, FLOAT16_FLOOR, FLOAT16_SUMS_FLOOR = 1e-5, 2e-2, 1e-3, 3e-2


@dataclass(frozen=True)
class GoldenResult:
    """A graph that was run on its golden inputs.

    Attributes:
        graph: Its name, or that of the decoder in tiles.
        relative_error: The largest absolute error over the largest absolute value of torch's output.
        limit: The largest relative error that is accepted: four times that at export, but at least what processors
            differ by (`find_error_floor`).
    """

    graph: str
    relative_error: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit; that of outputs that are not finite never is."""
        return self.relative_error <= self.limit


def run_goldens(folder: Path, progress: Progress = no_progress) -> list[GoldenResult]:
    """Runs every graph of an export that has golden inputs, with one graph in memory at a time.

    An image that was decoded in tiles when the graphs were verified is decoded in tiles again.

    Args:
        folder: The exported folder `onnx`.
        progress: Called with graphs.

    Raises:
        UserError: The export cannot be loaded or run, or golden inputs cannot be read.
    """
    config = read_onnx_config(folder)
    errors, floor = list(config.parity.values()), find_error_floor(config, read_cpu_features())
    names = list(errors[-1].graphs) if errors else []
    graphs = _GoldenGraphs(load_exported_onnx(folder))
    results = []
    for number, name in enumerate(names):
        progress(PROGRESS_STAGE, number, len(names))
        limit = max(ERROR_FACTOR * errors[-1].graphs[name].relative, floor)
        results.append(GoldenResult(name, graphs.measure_error(name), limit))
    progress(PROGRESS_STAGE, len(names), len(names))
    return results


def find_error_floor(config: OnnxPipelineConfig, features: CpuFeatures) -> float:
    """How far the outputs of a sound graph may differ between processors, relative to the largest.

    Args:
        config: The export, whose precision decides.
        features: The processor that runs the graphs.
    """
    floors = [FLOAT_FLOOR]
    if config.precision == "w8a8" or (config.precision == "int4" and config.accuracy_level):
        floors.append(INTEGER_FLOOR)
    if config.uses_fp16:
        floors.append(FLOAT16_SUMS_FLOOR if features.is_arm64 and features.has_fp16_arithmetic else FLOAT16_FLOOR)
    return max(floors)


class _GoldenGraphs:
    """The graphs of an export, to run on their golden inputs."""

    def __init__(self, exported: ExportedOnnx) -> None:
        self._exported = exported
        self._sessions = SessionPool(
            exported.graph_files,
            False,
            accuracy_level=exported.accuracy_level,
            linked_weights=exported.linked_weights,
            by_block=True,
        )

    def measure_error(self, name: str) -> float:
        """The largest error of any output of a graph over the largest value of torch's; infinite if one is not finite.

        Args:
            name: The graph's name, or that of the decoder in tiles.
        """
        with reject_malformed(self._exported.folder):
            family = get_family(self._exported.pipeline_class)
            host = load_host(family, self._exported.host_configs) if family.host else None
        in_tiles = host is not None and name == name_in_tiles(host.decoder_graph)
        graph = host.decoder_graph if host is not None and in_tiles else name
        arrays = dict(_read_arrays(self._exported.folder / GOLDEN_FOLDER / f"{graph}.npz"))
        inputs: Arrays = {key.removeprefix("in."): array for key, array in arrays.items() if key.startswith("in.")}
        expected = [array for key, array in arrays.items() if key.startswith("out.")]
        stages = host.decoder_stages if host is not None and in_tiles else None
        if stages is not None:
            size = expected[0].shape[2:]
            outputs = [decode_in_half_tiles(self._sessions.run, graph, stages, inputs, size)]
        else:
            buckets = self._exported.bucketed_graphs
            outputs = self._sessions.run(select_bucket(buckets, graph, inputs) if buckets else graph, inputs)
        pairs = [(output, array.astype(np.float64)) for output, array in zip(outputs, expected, strict=False)]
        errors = [
            float(np.abs(output - array).max() / max(np.abs(array).max(), np.finfo(np.float32).tiny))
            for output, array in pairs
        ]
        return max(errors) if np.isfinite(errors).all() else float("inf")


def _read_arrays(file: Path) -> Iterator[tuple[str, NDArray[np.generic]]]:
    try:
        with np.load(file) as arrays:
            for name in arrays.files:
                yield name, arrays[name]
    except (OSError, ValueError, BadZipFile, KeyError) as error:
        raise UserError(f"{file} cannot be read. Export the artifact again.") from error
