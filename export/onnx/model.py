"""The pipeline folder that is exported: where it is, whether it is what was pressed, and where its weights are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import artifact
from ...checkpoint import Checkpoint
from ...errors import UserError
from ...models import Family, family_of
from ...progress import Progress, silent
from ...sources import pipeline_class


@dataclass(frozen=True)
class Model:
    """A diffusers folder and its family; `manifest` is that of the artifact that it is part of, if it is."""

    folder: Path
    family: Family
    manifest: artifact.Manifest | None

    def checkpoint(self, component: str) -> Checkpoint:
        """The weights of a component, by the names of its modules.

        Raises:
            UserError: no such component, or its weights cannot be read.
        """
        checkpoint = Checkpoint(self.folder / component)
        known = self.family.component(component)
        wrapped = dict(known.wrapped_in) if known else {}
        named = (checkpoint.config().get("architectures") or [""])[0]
        return Checkpoint(checkpoint.folder, wrapped[named]) if named in wrapped else checkpoint

    def solution(self, component: str) -> Checkpoint | None:
        """A component's symmetric 4-bit solution, beside what its folder holds; the first by name."""
        for folder in sorted(self.folder.glob(f"solutions/*/{component}")):
            solution = Checkpoint(folder)
            scheme = solution.config().get("scheme", {})
            symmetric = scheme.get("bits") == 4 and not scheme.get("zero_point")
            if symmetric and scheme.get("group_size") != "channel":
                return solution
        return None

    def configs(self) -> dict[str, Any]:
        """What the family's host reads: each component's config, without how its weights are stored, by folder."""
        found = {}
        for path in sorted(self.folder.glob("*/*config.json")):
            if path.name in ("config.json", "scheduler_config.json"):
                content = json.loads(path.read_text("utf-8"))
                found[path.parent.name] = {key: value for key, value in content.items() if key != "quantization_config"}
        return found

    def described(self, progress: Progress = silent) -> list[artifact.File]:
        """Every file with its SHA-256.

        Raises:
            UserError: a file is not what it was when the pipeline was pressed.
        """
        files = artifact.describe(self.folder, progress)
        pressed = self.manifest.files if self.manifest else files
        changed = sorted({file.path for file in set(files) ^ set(pressed)})
        if changed:
            raise UserError(
                f"{self.folder / changed[0]} was changed since it was quantized (manifest.json has another SHA-256); "
                "quantize again."
            )
        return files


def find(folder: Path) -> Model:
    """The model of a diffusers folder, or of an artifact folder.

    Raises:
        UserError: it is neither, or nothing is known of its pipeline's class.
    """
    inside = folder / "model"
    if not (folder / "model_index.json").exists():
        if not inside.is_dir():
            raise UserError(
                f"{folder} holds no model/ and no model_index.json; make one with 'edgepress quantize', or give a "
                "diffusers folder with --model."
            )
        return Model(inside, family_of(pipeline_class(inside)), artifact.read_manifest(folder))
    manifest = artifact.read_manifest(folder.parent) if folder.name == "model" else None
    return Model(folder, family_of(pipeline_class(folder)), manifest)


def tokenizer_files(model: Model, names: Sequence[str]) -> dict[str, str]:
    """The tokenizer's files by name, as text; a chat template that stands in tokenizer_config.json becomes a file.

    Raises:
        UserError: one is missing.
    """
    folder = model.folder / "tokenizer"
    found = {name: (folder / name).read_text("utf-8") for name in names if (folder / name).is_file()}
    config = json.loads(found.get("tokenizer_config.json", "{}"))
    if "chat_template.jinja" not in found and isinstance(config.get("chat_template"), str):
        found["chat_template.jinja"] = config["chat_template"]
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{folder / missing[0]} is missing; save the pipeline anew with save_pretrained().")
    return found
