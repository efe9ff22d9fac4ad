"""The parts as float ONNX in a folder: what the toolkit builds from, and what it is held against."""

from __future__ import annotations

from pathlib import Path

from ...models.npu import Part
from ...progress import Progress
from ...runtime.rknn.manifest import SIMULATOR
from ...runtime.sessions import Sessions
from ..onnx.weights import Source
from .graph import write
from .job import Job

SMALL = 4e8  # bytes of ONNX up to which a picture is simulated and layers are analysed, which is minutes for more


class Floats:
    """The ONNX of a job's parts, by name in `files`: the NPU's in the folder of what simulates, others beside it."""

    def __init__(self, job: Job, folder: Path) -> None:
        self._job, self._folder = job, folder
        self.files: dict[str, Path] = {}

    def write_all(self, progress: Progress) -> None:
        """Writes every part, its weights as they are solved."""
        parts = self._job.parts
        for number, part in enumerate(parts):
            progress("tracing", number, len(parts))
            self.write(part, (self._job.cpu if self._job.on_cpu(part) else self._job.sources)[part.graph.component])
        progress("tracing", len(parts), len(parts))

    def write(self, part: Part, source: Source) -> None:
        """Writes a part in the place of an older one."""
        cpu = self._job.on_cpu(part)
        folder = self._folder if cpu else self._folder / SIMULATOR
        folder.mkdir(parents=True, exist_ok=True)
        for older in (folder / f"{part.name}.onnx", *folder.glob(f"{part.name}-*-of-*.safetensors")):
            older.unlink(missing_ok=True)
        self.files[part.name] = write(part, self._job.model, source, self._job.host.sizes, folder, cpu)

    def sessions(self) -> Sessions:
        """Runs parts by name, all in ONNX Runtime."""
        return Sessions(self.files, keep=self.is_small)

    @property
    def is_small(self) -> bool:
        return sum(file.stat().st_size for file in self._folder.rglob("*.safetensors")) < SMALL
