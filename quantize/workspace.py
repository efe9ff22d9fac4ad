"""The workspace of a quantization: what an unfinished run has computed, so that the next one can resume it.

Every finished piece of work is one file, written under a temporary name, synced and renamed; a killed run loses at most
one of them. The folder's name is a hash of everything the result depends on, so that another recipe, prompt set, model
or version of the code gets another folder.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError
from ..storage.checkpoint import open_safetensors
from ..storage.checksums import write_checksums
from ..storage.files import read_json_object, record_file, write_json
from ..storage.integrity import require_intact
from ..storage.layout import MANIFEST, MODEL, Artifact
from ..storage.manifest import Manifest, read_manifest
from ..storage.publishing import artifact_lock, fsync_folder, publish_folder

if TYPE_CHECKING:
    from torch import Tensor

KEY_LENGTH = 16
KEY = re.compile(rf"[0-9a-f]{{{KEY_LENGTH}}}")
REPLACE_ADVICE = "Use --force to quantize again, or --output to write to another folder."
INPUTS_FILES = ("inputs.json", "made-from.json")  # the second is its name in earlier releases


class WorkspaceState(StrEnum):
    """What there is to do.

    Attributes:
        DONE: The artifact is published and complete.
        RESUMABLE: An interrupted run left work that can be used.
        NEW: Nothing can be used.
    """

    DONE = "done"
    RESUMABLE = "resumable"
    NEW = "new"


@dataclass(frozen=True)
class Workspace:
    """The unfinished work of one quantization, in `output/.work/key`.

    Attributes:
        output: The artifact folder.
        key: Hash of everything that the result depends on.
        inputs: What the key was computed from, by topic.
        state: What an earlier run left, as `open` saw it.
        published: The manifest of the published artifact, where the state is DONE.
    """

    output: Path
    key: str
    inputs: dict[str, Any] = field(default_factory=dict, repr=False)
    state: WorkspaceState = WorkspaceState.NEW
    published: Manifest | None = field(default=None, repr=False)

    @classmethod
    def open(cls, output: Path, inputs: dict[str, Any], *, force: bool = False, restart: bool = False) -> Workspace:
        """Looks at what earlier runs left. Nothing is written.

        Args:
            output: The artifact folder.
            inputs: Everything that the result depends on, as JSON, by topic.
            force: Replace an artifact that was made from other inputs.
            restart: Use nothing of what is there.

        Raises:
            UserError: The artifact was made from other inputs, or its files have changed since, and `force` is off.
        """
        key = compute_key(inputs)
        workspace = cls(output, key, inputs)
        publishing = workspace.manifest_file.exists()  # all that is missing is to publish
        published = None if force or publishing else _find_published(output, key)
        if restart:
            return workspace
        if published is not None:
            return cls(output, key, inputs, WorkspaceState.DONE, published)
        return cls(output, key, inputs, WorkspaceState.RESUMABLE) if workspace.folder.exists() else workspace

    # ------------------------------------------------------------ places

    @property
    def artifact(self) -> Artifact:
        return Artifact(self.output)

    @property
    def folder(self) -> Path:
        return self.artifact.work / self.key

    @property
    def inputs_file(self) -> Path:
        """The inputs that the key stands for."""
        return self.folder / INPUTS_FILES[0]

    @property
    def statistics_file(self) -> Path:
        return self.folder / "statistics.safetensors"

    def denoiser_outputs_file(self, batch: int) -> Path:
        """What the denoiser's finished calls in a batch of images returned."""
        return self.folder / f"outputs-{batch}.pt"

    def reference_file(self, batch: int) -> Path:
        """What the denoisers returned for a batch of images that validates."""
        return self.folder / f"reference-{batch}.pt"

    def new_sample_file(self, block: str, call: int, run: int, kind: str = "samples") -> Path:
        """Tokens that a block read in one call of its component; `run` counts its runs in that call.

        Args:
            kind: `samples` for tokens to solve on, `validation` for others.
        """
        folder = self.folder / kind / block
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{call:05d}-{run}.safetensors"

    def sample_files(self, block: str) -> list[Path]:
        return sorted((self.folder / "samples" / block).glob("*.safetensors"))

    def validation_files(self, block: str) -> list[Path]:
        """Tokens of prompts that are not solved on."""
        return sorted((self.folder / "validation" / block).glob("*.safetensors"))

    def variants_file(self, block: str) -> Path:
        """The results of a block with each variant of `best`, of which one becomes the block's."""
        return self.folder / "variants" / f"{block}.safetensors"

    @property
    def choice_file(self) -> Path:
        """Which variant was chosen, and the drift of each."""
        return self.folder / "choice.json"

    def drift_file(self, variant: str) -> Path:
        """The drift of a variant on the prompts that validate."""
        return self.folder / f"drift-{variant}.json"

    @property
    def allocation_file(self) -> Path:
        """Which format each linear got from a budget."""
        return self.folder / "allocation.json"

    def sensitivity_file(self, image: int) -> Path:
        """What errors of linears do to the outputs of denoisers in an image."""
        return self.folder / f"sensitivity-{image}.json"

    def block_file(self, block: str) -> Path:
        """The tensors and statistics of a quantized block."""
        return self.folder / "blocks" / f"{block}.safetensors"

    def tuned_file(self, component: str, scheme: str) -> Path:
        """The tensors of a component that tuning changed for a scheme. Unfinished work of tuning is beside it."""
        return self.folder / "tuning" / f"{component}.{scheme}.safetensors"

    @property
    def model_folder(self) -> Path:
        """Where the quantized pipeline is assembled before it is published."""
        return self.folder / "model"

    @property
    def manifest_file(self) -> Path:
        """The manifest to publish. Once it exists, publishing is all that is left to do."""
        return self.folder / "manifest.json"

    # ------------------------------------------------------------ life

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Creates the workspace and keeps other processes from the artifact folder.

        A workspace in which nothing was finished is removed at the end.

        Raises:
            UserError: Another process is working on the artifact.
        """
        with artifact_lock(self.output):
            self._create_folders()
            for path in self.folder.rglob(".*"):  # half-written files of a killed run, ours and those of safetensors
                path.unlink()
            write_json(self.inputs, self.inputs_file)
            try:
                yield
            finally:
                if not self._has_results():
                    shutil.rmtree(self.folder, ignore_errors=True)

    def _has_results(self) -> bool:
        """Whether there is a file that the next run can use."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        return files not in ([], [self.inputs_file])

    def reset(self) -> None:
        """Forgets what an earlier run finished."""
        shutil.rmtree(self.folder)
        self._create_folders()
        write_json(self.inputs, self.inputs_file)

    def _create_folders(self) -> None:
        self.block_file("").parent.mkdir(parents=True, exist_ok=True)
        self.variants_file("").parent.mkdir(exist_ok=True)
        self.tuned_file("", "").parent.mkdir(exist_ok=True)

    def publish(self) -> None:
        """Moves the model and then the manifest to their places. Can be interrupted anywhere and called again.

        An older manifest is removed first, so that no manifest ever describes another model.
        """
        if self.model_folder.exists():
            self.artifact.manifest.unlink(missing_ok=True)
            publish_folder(self.model_folder, self.artifact.model)
        self._write_checksums()
        self.manifest_file.replace(self.artifact.manifest)
        fsync_folder(self.output)

    def _write_checksums(self) -> None:
        """Writes SHA256SUMS of the model and of its manifest, which is about to get its place."""
        manifest = Manifest.model_validate_json(self.manifest_file.read_text("utf-8"))
        model = [file.model_copy(update={"path": f"{MODEL}/{file.path}"}) for file in manifest.files]
        described_by = record_file(self.folder, self.manifest_file.name).model_copy(update={"path": MANIFEST})
        write_checksums([described_by, *model], self.output)

    def clear(self) -> None:
        """Removes this workspace and those of other inputs."""
        for folder in find_workspaces(self.artifact):
            shutil.rmtree(folder, ignore_errors=True)

    def find_stale(self) -> dict[Path, list[str]]:
        """Returns the workspaces of other inputs in the same artifact, each with the topics that differ."""
        stale = {}
        for name in INPUTS_FILES:
            for file in self.artifact.work.glob(f"*/{name}"):
                if file.parent != self.folder:
                    inputs = _read_inputs(file)
                    stale[file.parent] = [topic for topic in self.inputs if inputs.get(topic) != self.inputs[topic]]
        return dict(sorted(stale.items()))


# ---------------------------------------------------------------- files


def _read_inputs(file: Path) -> dict[str, Any]:
    """Returns the inputs of a workspace; of a file that cannot be read, none."""
    try:
        return read_json_object(file)
    except UserError:
        return {}


def iterate_tensors(file: Path, names: Iterable[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors of a safetensors file by name, each loaded when it is asked for: all of them, or some."""
    with open_safetensors(file) as stored:
        for name in stored.keys() if names is None else names:
            yield name, stored.get_tensor(name)


def read_tensor(file: Path, name: str) -> Tensor:
    """Loads one tensor of a safetensors file; the others stay on disk."""
    with open_safetensors(file) as stored:
        tensor: Tensor = stored.get_tensor(name)
        return tensor


def list_tensor_names(file: Path) -> list[str]:
    with open_safetensors(file) as stored:
        return list(stored.keys())


def read_metadata(file: Path) -> Any:
    """Returns the JSON that was stored beside the tensors of a safetensors file."""
    with open_safetensors(file) as stored:
        return json.loads(stored.metadata()["format"])


def find_workspaces(artifact: Artifact) -> list[Path]:
    """The workspaces in an artifact, whatever their inputs. Other folders in `.work` may be another program's."""
    folders = [path for path in sorted(artifact.work.glob("*")) if path.is_dir()]
    return [
        folder
        for folder in folders
        if KEY.fullmatch(folder.name) or any((folder / name).exists() for name in INPUTS_FILES)
    ]


def compute_key(inputs: dict[str, Any]) -> str:
    """Hashes everything that a result depends on."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def _find_published(output: Path, key: str) -> Manifest | None:
    """Returns the manifest of a published artifact with this key, or None where nothing is published.

    Raises:
        UserError: The artifact was made from something else, or its files have changed.
    """
    model = Artifact(output).model
    manifest = read_manifest(output)
    if manifest is not None and manifest.key == key and model.is_dir():
        require_intact(model, manifest.files, REPLACE_ADVICE)
        return manifest
    if model.exists() and any(model.iterdir()):
        raise UserError(explain_other_inputs(model))
    return None


def explain_other_inputs(model: Path) -> str:
    """Says that a published model was made from other inputs, and what to do."""
    return (
        f"{model} was made from another recipe, prompt set, model, LoRA or reused text encoder, or by another version "
        "of edgepress or of its libraries, or on another GPU. "
        "Use --force to replace it and what was exported from it, or --output to write to another folder."
    )
