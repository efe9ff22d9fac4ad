"""Runs exported graphs on their golden inputs, and compares the outputs with those that torch computed at export."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..storage.pipeline_config import read_onnx_config
from .onnx.exported import ExportedOnnx, load_exported_onnx
from .onnx.sessions import SessionPool
from .onnx.shape_buckets import Arrays, select_bucket

GOLDEN_FOLDER = "golden"
PROGRESS_STAGE = "running graphs"
# Errors that other processors add: they sum in another order, and the error at export was measured on one of them.
ERROR_FACTOR, ERROR_FLOOR = 4.0, 1e-4


@dataclass(frozen=True)
class GoldenResult:
    """A graph that was run on its golden inputs.

    Attributes:
        graph: Its name.
        relative_error: The largest absolute error over the largest absolute value of torch's output.
        limit: The largest relative error that is accepted: four times that at export, but at least 1e-4.
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

    Args:
        folder: The exported folder `onnx`.
        progress: Called with graphs.

    Raises:
        UserError: The export cannot be loaded or run, or golden inputs cannot be read.
    """
    errors = list(read_onnx_config(folder).parity.values())
    exported = load_exported_onnx(folder)
    sessions = SessionPool(
        exported.graph_files, False, accuracy_level=exported.accuracy_level, linked_weights=exported.linked_weights
    )
    files = [folder / GOLDEN_FOLDER / f"{name}.npz" for name in (errors[-1].graphs if errors else ())]
    results = []
    for number, file in enumerate(files):
        progress(PROGRESS_STAGE, number, len(files))
        limit = max(ERROR_FACTOR * errors[-1].graphs[file.stem].relative, ERROR_FLOOR)
        results.append(GoldenResult(file.stem, _measure_error(exported, sessions, file), limit))
    progress(PROGRESS_STAGE, len(files), len(files))
    return results


def _measure_error(exported: ExportedOnnx, sessions: SessionPool, file: Path) -> float:
    arrays = dict(_read_arrays(file))
    inputs: Arrays = {name.removeprefix("in."): array for name, array in arrays.items() if name.startswith("in.")}
    expected = [array for name, array in arrays.items() if name.startswith("out.")]
    graph = file.stem
    session = select_bucket(exported.bucketed_graphs, graph, inputs) if exported.bucketed_graphs else graph
    outputs = sessions.run(session, inputs)
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
