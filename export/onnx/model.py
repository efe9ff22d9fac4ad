"""The pipeline folder that is exported: where it is, whether it is what was pressed, and where its weights are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
        """The weights of a component, by the names of its modules; a prefix is only left out where names have it.

        Raises:
            UserError: no such component, or its weights cannot be read.
        """
        checkpoint = Checkpoint(self.folder / component)
        known = self.family.component(component)
        wrapped = dict(known.wrapped_in) if known else {}
        prefix = wrapped.get((checkpoint.config().get("architectures") or [""])[0], "")
        is_prefixed = any(name.startswith(prefix) for name in checkpoint.names())
        return Checkpoint(checkpoint.folder, prefix) if prefix and is_prefixed else checkpoint

    def solution(self, component: str) -> Checkpoint | None:
        """A component's symmetric 4-bit solution, beside what its folder holds; the first by name."""

        def fits(scheme: dict[str, Any]) -> bool:
            symmetric = scheme.get("bits") == 4 and not scheme.get("zero_point")
            return symmetric and scheme.get("group_size") != "channel"

        return self._solution(component, fits)

    def int8_solution(self, component: str, activations: str) -> Checkpoint | None:
        """A component's solution for activations that are rounded as said; the first by name."""
        return self._solution(component, lambda scheme: scheme.get("activations") == activations)

    def _solution(self, component: str, fits: Callable[[dict[str, Any]], bool]) -> Checkpoint | None:
        """The first solution by name whose scheme fits."""
        solutions = (Checkpoint(folder) for folder in sorted(self.folder.glob(f"solutions/*/{component}")))
        return next((one for one in solutions if fits(one.config().get("scheme", {}))), None)

    def configs(self) -> dict[str, Any]:
        """What the family's host reads: each component's config, without how its weights are stored, by folder."""
        return _configs(self.folder)

    def check_size(self, height: int, width: int) -> None:
        """Looks at a size in pixels, where the family has no host to say what is wrong.

        Raises:
            UserError: a picture cannot have it, or the VAE is of an unknown class.
        """
        blocks = self.configs().get("vae", {}).get("block_out_channels")
        if blocks is None:
            raise UserError(f"{self.folder / 'vae'} holds no AutoencoderKL, which is all that can be exported.")
        multiple = self.family.patch * 2 ** (len(blocks) - 1)
        if height % multiple or width % multiple or min(height, width) <= 0:
            raise UserError(
                f"A picture of {height}x{width} cannot be painted; both sides must be multiples of {multiple}."
            )

    def with_graphs(self, names: Sequence[str]) -> Model:
        """The model with further graphs of its family.

        Raises:
            UserError: the family has none of that name.
        """
        more = {graph.name: graph for graph in self.family.more}
        unknown = [name for name in names if name not in more]
        if unknown:
            there = f"there is {', '.join(more)}" if more else "there is none"
            raise UserError(f"There is no further graph {unknown[0]!r} of the class {self.family.pipeline}; {there}.")
        return replace(self, family=replace(self.family, graphs=(*self.family.graphs, *(more[name] for name in names))))

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
        UserError: it is neither, the artifact has no manifest, or nothing is known of its pipeline's class.
    """
    inside = folder / "model"
    if not (folder / "model_index.json").exists():
        if not inside.is_dir():
            raise UserError(
                f"{folder} holds no model/ and no model_index.json; make one with 'edgepress quantize', or give a "
                "diffusers folder with --model."
            )
        manifest = artifact.read_manifest(folder)
        if manifest is None:
            raise UserError(
                f"{folder / 'manifest.json'} is missing, so that nothing says whether model/ is what was quantized; "
                f"quantize again, or give --model {inside} to take it as it is."
            )
        return Model(inside, _family(inside), manifest)
    manifest = artifact.read_manifest(folder.parent) if folder.name == "model" else None
    return Model(folder, _family(folder), manifest)


def _family(folder: Path) -> Family:
    """The family of a pipeline folder, with the graphs that its configs ask for."""
    family, configs = family_of(pipeline_class(folder)), _configs(folder)
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    there = [graph for graph in family.graphs if not graph.optional or any(index.get(graph.component) or ())]
    return replace(family, graphs=tuple(graph.of(configs.get(graph.component, {})) for graph in there))


def _configs(folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted(folder.glob("*/*config.json")):
        if path.name in ("config.json", "scheduler_config.json"):
            content = json.loads(path.read_text("utf-8"))
            found[path.parent.name] = {key: value for key, value in content.items() if key != "quantization_config"}
    return found


def tokenizer_folders(model: Model) -> list[Path]:
    """The folders of the pipeline's tokenizers."""
    return [path for path in sorted(model.folder.glob("tokenizer*")) if path.is_dir()]


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
