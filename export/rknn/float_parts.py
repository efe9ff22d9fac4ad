"""The parts as float ONNX in a folder: what the toolkit builds from, and what it is held against."""

from __future__ import annotations

from pathlib import Path

from ...common.progress import Progress
from ...models.base.npu import GraphPart
from ...runtime.onnx.sessions import SessionPool
from ...runtime.rknn.exported import SIMULATOR_FOLDER
from ..graph.external_weights import WeightSource
from .part_graph import write_part_onnx
from .prepare import RknnJob

SMALL_MODEL_BYTES = (
    4e8  # bytes of ONNX up to which a picture is simulated and layers are analysed, which is minutes for more
)


class FloatParts:
    """The ONNX of a job's parts, by name in `files`: the NPU's in the folder of what simulates, others beside it."""

    def __init__(self, job: RknnJob, folder: Path) -> None:
        self._job, self._folder = job, folder
        self.onnx_files: dict[str, Path] = {}

    def write_all(self, progress: Progress) -> None:
        """Writes every part, its weights as they are solved."""
        parts = self._job.parts
        for number, part in enumerate(parts):
            progress("tracing", number, len(parts))
            self.write(
                part,
                (self._job.cpu_weights if self._job.runs_on_cpu(part) else self._job.npu_weights)[part.graph.component],
            )
        progress("tracing", len(parts), len(parts))

    def write(self, part: GraphPart, source: WeightSource) -> None:
        """Writes a part in the place of an older one."""
        cpu = self._job.runs_on_cpu(part)
        folder = self._folder if cpu else self._folder / SIMULATOR_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for older in (folder / f"{part.name}.onnx", *folder.glob(f"{part.name}-*-of-*.safetensors")):
            older.unlink(missing_ok=True)
        self.onnx_files[part.name] = write_part_onnx(
            part, self._job.model, source, self._job.host.axis_sizes, folder, cpu
        )

    def open_sessions(self) -> SessionPool:
        """Runs parts by name, all in ONNX Runtime."""
        return SessionPool(self.onnx_files, keep_loaded=self.is_small)

    @property
    def is_small(self) -> bool:
        return sum(file.stat().st_size for file in self._folder.rglob("*.safetensors")) < SMALL_MODEL_BYTES
