"""The work folder: where an unfinished run keeps what it has, so that being killed costs one unit.

A unit is one file, written under a temporary name, synced, renamed. The folder's name is a key of everything that the
result depends on; another recipe, prompt set or weight file is another folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError

KEY_LENGTH = 16


@dataclass(frozen=True)
class Work:
    """The folder of one run, `OUTPUT/.work/KEY`."""

    folder: Path

    @property
    def statistics(self) -> Path:
        return self.folder / "statistics.safetensors"

    def unit(self, name: str) -> Path:
        return self.folder / "units" / f"{name}.safetensors"

    @property
    def model(self) -> Path:
        """Where the pressed pipeline is put together before it is published."""
        return self.folder / "model"

    def clear(self) -> None:
        """Removes the work, once it is published."""
        shutil.rmtree(self.folder)

    def read(self, file: Path) -> dict[str, Tensor]:
        """The tensors of a file that this run or an earlier one wrote."""
        with _opened(file) as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118

    def tensor(self, file: Path, name: str) -> Tensor:
        """One tensor of a file, the others left on disk."""
        with _opened(file) as stored:
            tensor: Tensor = stored.get_tensor(name)
            return tensor

    def names(self, file: Path) -> list[str]:
        with _opened(file) as stored:
            return list(stored.keys())

    def note(self, file: Path) -> Any:
        """What was noted beside the tensors."""
        with _opened(file) as stored:
            return json.loads(stored.metadata()["format"])


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except SafetensorError as error:
        raise UserError(f"{file} is damaged ({error}); delete it and run again.") from error


def key_of(content: dict[str, Any]) -> str:
    """A key for everything that a result depends on."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


@contextmanager
def open_work(output: Path, key: str) -> Iterator[Work]:
    """The work folder for a key, locked against a second process on the same output."""
    folder = output / ".work" / key
    (folder / "units").mkdir(parents=True, exist_ok=True)
    with (output / ".work" / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"Another edgepress works on {output}; wait for it or give another --output.") from error
        _remove_leftovers(folder)
        yield Work(folder)


def _remove_leftovers(folder: Path) -> None:
    """Half-written files of a killed run."""
    for path in folder.rglob("*.new"):
        path.unlink()


def publish(folder: Path, target: Path) -> None:
    """Puts a finished folder in the place of `target` by renaming; an older one steps aside first."""
    aside = folder.with_name("replaced")
    shutil.rmtree(aside, ignore_errors=True)
    if target.exists():
        target.rename(aside)
    folder.rename(target)
    _sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
