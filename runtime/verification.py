"""Compares every file of an export with the SHA-256 that was recorded when it was exported."""

from __future__ import annotations

from pathlib import Path

from ..common.progress import Progress, no_progress
from ..storage.files import FileRecord, digest_files, list_files
from ..storage.hash_memory import HashMemory
from ..storage.integrity import require_intact
from ..storage.layout import ENGINES_FOLDER, is_export
from ..storage.provenance import MAKE_AGAIN, describe_missing_hashes, list_required_files, read_recorded_files
from .onnx.exported import find_onnx_folder
from .rknn.exported import find_rknn_folder, is_rknn_artifact


def find_export_folder(artifact: Path) -> Path:
    """The folder that images are generated from: of an artifact with both exports, that of the ONNX graphs."""
    return find_rknn_folder(artifact) if is_rknn_artifact(artifact) else find_onnx_folder(artifact)


def verify_export(artifact: Path, progress: Progress = no_progress) -> str:
    """Reads every file of an export, except those that were read before and have not changed since.

    Args:
        artifact: Folder of the artifact, or the `onnx` or `rknn` folder in it.
        progress: Called with bytes.

    Returns:
        A sentence if the export holds no hashes, since an earlier release made it; else an empty string.

    Raises:
        UserError: A file is not as it was exported.
    """
    folder = find_export_folder(artifact)
    files = list_required_files(folder, read_recorded_files(folder))
    if not files:
        return describe_missing_hashes(folder) if is_export(folder) else ""  # loading says that there is no export
    with HashMemory() as hashes:
        require_intact(folder, files, MAKE_AGAIN, hashes, progress)
    return ""


def digest_export(artifact: Path) -> str:
    """The digest of all files of an export that an evaluation of it records too; read as in `verify_export`."""
    folder = find_export_folder(artifact)
    with HashMemory() as hashes:
        records = [
            FileRecord(path=name, bytes=(folder / name).stat().st_size, sha256=hashes.hash_file(folder / name))
            for name in list_files(folder)
            if (folder / name).exists() and not name.startswith(f"{ENGINES_FOLDER}/")  # no dangling link
        ]
    return digest_files(records)
