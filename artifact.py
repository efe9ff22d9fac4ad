"""manifest.json: what an artifact is made of, from what, and how sure that is."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from . import __version__
from .checkpoint import sha256, write_json
from .errors import UserError
from .progress import Progress, silent

WORK = ".work"  # the folder in an artifact for work in flight
ASIDE = "replaced-"  # what a folder's name begins with while a new one takes its place
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
    sources: list[File]
    files: list[File]
    layers: list[dict[str, Any]]
    also: dict[str, list[dict[str, Any]]] = {}
    kept: int
    sizes: dict[str, dict[str, int]]
    savings: dict[str, dict[str, int]]
    overflowing: list[str]
    versions: dict[str, str]


def describe(folder: Path, progress: Progress = silent, stage: str = "reading weights") -> list[File]:
    """Every file below a folder, in the order of their paths; links are followed, hidden names left out."""
    sizes = {name: (folder / name).stat().st_size for name in _files(folder)}
    described: list[File] = []
    for name, size in sizes.items():
        progress(stage, sum(file.bytes for file in described), sum(sizes.values()))
        described.append(File(path=name, bytes=size, sha256=sha256(folder / name)))
    progress(stage, sum(sizes.values()), sum(sizes.values()))
    return described


def versions() -> dict[str, str]:
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


def _files(folder: Path) -> list[str]:
    """Relative paths with forward slashes, sorted."""
    found = []
    for top, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [(Path(top) / name).relative_to(folder).as_posix() for name in names if not name.startswith(".")]
    return sorted(found)


# ---------------------------------------------------------------- working on an artifact


@contextmanager
def locked(artifact: Path) -> Iterator[Path]:
    """Holds an artifact folder against a second process; gives the folder in it for work in flight.

    What a killed process was about to replace is back in its place.

    Raises:
        UserError: another process holds it.
    """
    work = artifact / WORK
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"Another edgepress works on {artifact}; wait for it or give another --output.") from error
        _put_back(artifact, work)
        yield work


def publish(staged: Path, target: Path) -> None:
    """Puts a folder of the work in flight in its place in the artifact by renaming; one that is there goes.

    Call it under the lock.

    A process that is killed between the two renames leaves no folder there, until the next one holds the lock.
    """
    aside = target.parent / WORK / f"{ASIDE}{target.name}"
    if target.exists():
        shutil.rmtree(aside, ignore_errors=True)
        target.rename(aside)
    staged.rename(target)
    sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _put_back(artifact: Path, work: Path) -> None:
    """Folders that were set aside: back where nothing took their place, else gone."""
    for aside in work.glob(f"{ASIDE}*"):
        target = artifact / aside.name.removeprefix(ASIDE)
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(target)


def sync(folder: Path) -> None:
    """Puts a folder's names on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
