"""manifest.json: what an artifact is made of, from what, and how sure that is."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from . import __version__
from .checkpoint import sha256, write_json
from .errors import UserError

LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "numpy")


class File(BaseModel):
    """A file by its path relative to some root, its size in bytes, and its SHA-256."""

    model_config = ConfigDict(frozen=True)

    path: str
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """An artifact's manifest.

    key: what the work was keyed by. sources: every file of the original pipeline. files: every file of `model/`.
    layers: for each quantized linear its error by rounding alone and as solved. kept: linears left in 16 bits in the
    pressed components. sizes: bytes before and after by component.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    device: str
    key: str
    source: str
    recipe: dict[str, Any]
    prompts_sha256: str
    sources: list[File]
    files: list[File]
    layers: list[dict[str, Any]]
    kept: int
    sizes: dict[str, dict[str, int]]
    versions: dict[str, str]


def describe(folder: Path) -> list[File]:
    """Every file below a folder, hidden ones left out, in the order of their paths."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path, folder))
    return [File(path=str(p.relative_to(folder)), bytes=p.stat().st_size, sha256=sha256(p)) for p in paths]


def versions() -> dict[str, str]:
    """The versions of what took part."""
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
        raise UserError(f"{path} is no manifest of this version ({error}); delete the artifact or use --force.") from error


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)
