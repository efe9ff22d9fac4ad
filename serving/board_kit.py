"""The board kit: what installs an artifact and its server on a board, in the artifact's folder `kit`."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from string import Template

from ..common.errors import UserError, escape_controls
from ..runtime.memory_need import read_memory_need
from ..storage.checksums import write_checksums
from ..storage.complete_artifact import require_complete
from ..storage.files import list_files, record_file
from ..storage.layout import KIT, Artifact
from ..storage.pipeline_config import OnnxPipelineConfig, read_export_config
from ..storage.preflight import check_writable_folder
from ..storage.recognition import require_export
from .wheelhouse import find_wheel_machine, find_wheel_python, require_wheels

TEMPLATES = Path(__file__).parent / "kit"
NAMES = ("install.sh", "edgepress.service", "supervisor.conf", "edgepress.env", "Containerfile")
WHEELHOUSE = "wheelhouse"
CONTAINER_PYTHON = "3.13"  # of the image, where nothing asks for another
SERVER_BYTES = 200 * 2**20  # of the interpreter and the server's libraries, beside the graphs
HIGH_FACTOR, MAX_FACTOR = 1.25, 1.5  # of the planned memory: where the kernel reclaims, and where it kills
HIGH_SHARE = 0.95  # of the memory that can be used, where that is less


@dataclass(frozen=True)
class _Memory:
    """What the server takes.

    Attributes:
        num_bytes: Its peak memory.
        source: Where that number is from, for a comment.
        usable_bytes: What a program can use on the device; None if that is not known.
    """

    num_bytes: int
    source: str
    usable_bytes: int | None = None


def write_board_kit(path: Path, wheelhouse: Path | None = None) -> Path:
    """Writes the kit of an artifact.

    Args:
        path: The artifact.
        wheelhouse: A folder of wheels, as `download_wheels` fills it, which is copied into the kit; None: the board
            installs from its package index.

    Returns:
        The kit's folder.

    Raises:
        UserError: The path is no artifact with an export, the wheelhouse lacks edgepress, or the folder cannot be
            written.
    """
    require_export(path)
    artifact = Artifact(path)
    if not (artifact.has_onnx or artifact.has_rknn):
        raise UserError(f"{path} is a part of an artifact. Give the folder of the artifact itself.")
    require_complete(artifact)
    if wheelhouse is not None:
        require_wheels(wheelhouse)
    folder = path / KIT
    check_writable_folder(folder)
    with tempfile.TemporaryDirectory(dir=path, prefix=".kit-") as scratch:
        new = Path(scratch) / KIT
        new.mkdir()
        _fill(new, artifact, wheelhouse)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)
    return folder


def _fill(folder: Path, artifact: Artifact, wheelhouse: Path | None) -> None:
    parts = [part for part, exists in (("onnx", artifact.has_onnx), ("rknn", artifact.has_rknn)) if exists]
    is_for_gpu = artifact.has_onnx and _uses_tensorrt_format(artifact)
    values = {
        "name": escape_controls(artifact.path.resolve().name).replace("%", "%%"),  # % names specifiers of systemd
        "memory": _render_memory(_read_memory(artifact)),
        "provider": f"{'' if is_for_gpu else '#'}EDGEPRESS_PROVIDER=auto",
        "private_devices": "no" if artifact.has_rknn or is_for_gpu else "yes",
        "python": find_wheel_python(wheelhouse) if wheelhouse else CONTAINER_PYTHON,
        "machine": find_wheel_machine(wheelhouse) if wheelhouse else "",
        "copies": "\n".join(f"COPY {part}/ /opt/edgepress/artifact/{part}/" for part in parts),
    }
    for name in NAMES:
        (folder / name).write_text(Template((TEMPLATES / name).read_text("utf-8")).substitute(values), "utf-8")
    (folder / "install.sh").chmod(0o755)
    if wheelhouse is not None:
        shutil.copytree(wheelhouse, folder / WHEELHOUSE)
    write_checksums([record_file(folder, name) for name in list_files(folder)], folder)


def _uses_tensorrt_format(artifact: Artifact) -> bool:
    """Whether the graphs are in the form that TensorRT takes, and not in that of ONNX Runtime's own products."""
    config = read_export_config(artifact.onnx)
    return isinstance(config, OnnxPipelineConfig) and config.format == "qdq"


def _read_memory(artifact: Artifact) -> _Memory:
    """The memory of all graphs loaded: from the artifact's plan, or else from the sizes of its files."""
    need = read_memory_need(artifact.onnx if artifact.has_onnx else artifact.rknn)
    if need.is_planned:
        source = "the memory plan in artifact.json and the server"
        return _Memory(need.resident_bytes + SERVER_BYTES, source, need.usable_bytes)
    size = 2 * need.resident_bytes + SERVER_BYTES
    return _Memory(size, "twice the size of the graphs and the server: there is no memory plan")


def _render_memory(memory: _Memory) -> str:
    high, most = HIGH_FACTOR * memory.num_bytes, MAX_FACTOR * memory.num_bytes
    bound = ""
    if memory.usable_bytes is not None and memory.usable_bytes < most:
        most = memory.usable_bytes
        high = min(high, HIGH_SHARE * most)
        bound = "# No more than a program can use on the smallest version of the device; raise it on a larger one.\n"
    return (
        f"# Estimated from {memory.source}.\n{bound}"
        "# These limits do not see memory of a GPU that shares it with the CPU, such as CUDA's on a Jetson.\n"
        "# The server therefore compares its graphs with MemAvailable before it loads them.\n"
        f"MemoryHigh={round(high / 2**20)}M\n"
        f"MemoryMax={round(most / 2**20)}M"
    )
