"""The parts as float ONNX: what the toolkit builds, and what the built parts are compared with."""

from __future__ import annotations

from pathlib import Path

from ...common.progress import Progress
from ...models.base.npu import GraphPart
from ...runtime.onnx.sessions import SessionPool
from ...storage.layout import SIMULATOR_FOLDER
from ..graph.external_weights import WeightSource
from .part_graph import write_part_onnx
from .prepare import RknnJob

SMALL_MODEL_BYTES = 4e8  # of weights; for larger models, simulating an image or analyzing layers takes minutes a part


class FloatParts:
    """The ONNX files of all parts of an export.

    Args:
        job: The export.
        folder: Folder for the parts on the CPU; those on the NPU go to its folder `simulator`.

    Attributes:
        onnx_files: Path of each part that was written, by name.
    """

    def __init__(self, job: RknnJob, folder: Path) -> None:
        self._job, self._folder = job, folder
        self.onnx_files: dict[str, Path] = {}

    def write_all(self, progress: Progress) -> None:
        """Writes every part, with its quantized weights if it has any."""
        parts = self._job.parts
        for number, part in enumerate(parts):
            progress("tracing", number, len(parts))
            weights = self._job.weights[part.graph.component]
            self.write(part, weights.cpu if self._job.runs_on_cpu(part) else weights.npu)
        progress("tracing", len(parts), len(parts))

    def write(self, part: GraphPart, weights: WeightSource) -> None:
        """Writes a part; an older file of it is replaced."""
        on_cpu = self._job.runs_on_cpu(part)
        folder = self._folder if on_cpu else self._folder / SIMULATOR_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for file in (folder / f"{part.name}.onnx", *folder.glob(f"{part.name}-*-of-*.safetensors")):
            file.unlink(missing_ok=True)
        self.onnx_files[part.name] = write_part_onnx(
            part, self._job.model, weights, self._job.host.axis_sizes, folder, on_cpu
        )

    def open_sessions(self) -> SessionPool:
        """Opens sessions that run every part in ONNX Runtime, by name."""
        return SessionPool(self.onnx_files, keep_loaded=self.is_small)

    @property
    def is_small(self) -> bool:
        """Whether the written weights are few enough to simulate an image and to analyze layers."""
        return sum(file.stat().st_size for file in self._folder.rglob("*.safetensors")) < SMALL_MODEL_BYTES
