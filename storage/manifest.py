"""manifest.json: what an artifact is made of, from what, and how sure that is."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from .. import __version__
from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from .files import hash_file, write_json

LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "numpy")


class FileRecord(BaseModel):
    """A file by its path relative to some root, its size in bytes, and its SHA-256."""

    model_config = ConfigDict(frozen=True)

    path: str
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """An artifact's manifest.

    key: what the work was keyed by. sources: every file of the original pipeline. files: every file of `model/`.
    layers: for each quantized linear its error by rounding alone, after each step and as solved. also: the same for
    further grids, by name. kept: linears left in 16 bits in the pressed components. sizes: bytes before and after by
    component. savings: bytes that each measure saved, by component. overflowing: activations that float16 cannot hold,
    where the recipe asks for fp16_safe.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    schema_version: int = 2
    device: str
    key: str
    source: str
    recipe: dict[str, Any]
    prompts_sha256: str
    sources: list[FileRecord]
    files: list[FileRecord]
    layers: list[dict[str, Any]]
    extra_scheme_layers: dict[str, list[dict[str, Any]]] = {}
    num_unquantized: int
    sizes: dict[str, dict[str, int]]
    size_savings: dict[str, dict[str, int]]
    fp16_overflows: list[str]
    versions: dict[str, str]


def hash_files(folder: Path, progress: Progress = no_progress, stage: str = "reading weights") -> list[FileRecord]:
    """Every file below a folder, in the order of their paths; links are followed, hidden names left out."""
    sizes = {name: (folder / name).stat().st_size for name in _list_files(folder)}
    records: list[FileRecord] = []
    for name, size in sizes.items():
        progress(stage, sum(file.bytes for file in records), sum(sizes.values()))
        records.append(FileRecord(path=name, bytes=size, sha256=hash_file(folder / name)))
    progress(stage, sum(sizes.values()), sum(sizes.values()))
    return records


def library_versions() -> dict[str, str]:
    """The versions of what takes part in pressing and painting."""
    return {"edgepress": __version__} | {library: version(library) for library in LIBRARIES}


def write_manifest(manifest: Manifest, artifact: Path) -> None:
    write_json(manifest.model_dump(mode="json"), artifact / "manifest.json")


def read_manifest(artifact: Path) -> Manifest | None:
    """The manifest of an artifact folder, or None where there is none.

    Raises:
        UserError: there is one that cannot be read.
    """
    path = artifact / "manifest.json"
    if not path.exists():
        return None
    try:
        return Manifest.model_validate(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no manifest of this version ({reason}); use --force to replace it.") from error


def _list_files(folder: Path) -> list[str]:
    """Relative paths with forward slashes, sorted."""
    paths = []
    for top, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [(Path(top) / name).relative_to(folder).as_posix() for name in names if not name.startswith(".")]
    return sorted(paths)


# ---------------------------------------------------------------- working on an artifact
