"""The work folder: where an unfinished run keeps what it has, so that being killed costs one unit.

A unit is one file, written under a temporary name, synced, renamed. The folder's name is a key of everything that the
result depends on; another recipe, prompt set or weight file is another folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..storage import publishing
from ..storage.checkpoint import open_safetensors

KEY_LENGTH = 16


@dataclass(frozen=True)
class Workspace:
    """The work of one run: `output/.work/key`."""

    output: Path
    key: str

    @property
    def folder(self) -> Path:
        return self.output / ".work" / self.key

    @property
    def statistics_file(self) -> Path:
        return self.folder / "statistics.safetensors"

    def denoiser_outputs_file(self, batch: int) -> Path:
        """What the denoiser's finished calls in a batch returned."""
        return self.folder / f"outputs-{batch}.pt"

    def new_sample_file(self, unit: str, call: int, run: int) -> Path:
        """Tokens that one run of a unit left at its inputs, in one call of what it belongs to."""
        folder = self.folder / "samples" / unit
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{call:05d}-{run}.safetensors"

    def sample_files(self, unit: str) -> list[Path]:
        return sorted((self.folder / "samples" / unit).glob("*.safetensors"))

    def block_file(self, name: str) -> Path:
        return self.folder / "units" / f"{name}.safetensors"

    @property
    def inputs_file(self) -> Path:
        """What the key stands for, in words."""
        return self.folder / "made-from.json"

    @property
    def model_folder(self) -> Path:
        """Where the pressed pipeline is put together before it is published."""
        return self.folder / "model"

    @property
    def manifest_file(self) -> Path:
        """The manifest to be published; once it is there, all that is left is to publish."""
        return self.folder / "manifest.json"

    def publish(self) -> None:
        """Puts the model and then the manifest in their places, by renaming; can be cut anywhere and called again.

        An older manifest goes first, so that none ever vouches for another model.
        """
        if self.model_folder.exists():
            (self.output / "manifest.json").unlink(missing_ok=True)
            publishing.publish_folder(self.model_folder, self.output / "model")
        self.manifest_file.replace(self.output / "manifest.json")
        publishing.fsync_folder(self.output)
        self.clear()

    def stale_workspaces(self) -> list[Path]:
        """Unfinished work of other keys on the same output."""
        folders = [path.parent for path in (self.output / ".work").glob("*/made-from.json")]
        return sorted(folder for folder in folders if folder != self.folder)

    def restart(self) -> None:
        """Forgets what is finished of this work."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        (self.folder / "units").mkdir()

    def clear(self) -> None:
        """Removes this work, and what runs of other keys left behind."""
        for path in (self.output / ".work").iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)

    def read_tensors(self, file: Path) -> dict[str, Tensor]:
        """The tensors of a file that this run or an earlier one wrote."""
        with open_safetensors(file) as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118

    def read_tensor(self, file: Path, name: str) -> Tensor:
        """One tensor of a file, the others left on disk."""
        with open_safetensors(file) as stored:
            tensor: Tensor = stored.get_tensor(name)
            return tensor

    def tensor_names(self, file: Path) -> list[str]:
        with open_safetensors(file) as stored:
            return list(stored.keys())

    def read_metadata(self, file: Path) -> Any:
        """What was noted beside the tensors."""
        with open_safetensors(file) as stored:
            return json.loads(stored.metadata()["format"])


def compute_key(content: dict[str, Any]) -> str:
    """A key for everything that a result depends on."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


@contextmanager
def locked(work: Workspace) -> Iterator[None]:
    """Makes the work folder and holds its output against a second process."""
    with publishing.artifact_lock(work.output):
        (work.folder / "units").mkdir(parents=True, exist_ok=True)
        _remove_leftovers(work.folder)
        yield


def _remove_leftovers(folder: Path) -> None:
    """Half-written files of a killed run."""
    for path in folder.rglob("*.new"):
        path.unlink()
