"""The pipeline folder that is exported: where it is, whether it is what was pressed, and where its weights are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...common.progress import Progress, no_progress
from ...models.base.family import Family
from ...models.registry import get_family
from ...pipelines.hub import read_pipeline_class
from ...storage import manifest as artifact
from ...storage.checkpoint import Checkpoint


@dataclass(frozen=True)
class SourcePipeline:
    """A diffusers folder and its family; `manifest` is that of the artifact that it is part of, if it is."""

    folder: Path
    family: Family
    manifest: artifact.Manifest | None

    def open_checkpoint(self, component: str) -> Checkpoint:
        """The weights of a component, by the names of its modules; a prefix is only left out where names have it.

        Raises:
            UserError: no such component, or its weights cannot be read.
        """
        checkpoint = Checkpoint(self.folder / component)
        known = self.family.component(component)
        wrapped = dict(known.weight_prefixes) if known else {}
        prefix = wrapped.get((checkpoint.load_config().get("architectures") or [""])[0], "")
        is_prefixed = any(name.startswith(prefix) for name in checkpoint.names())
        return Checkpoint(checkpoint.folder, prefix) if prefix and is_prefixed else checkpoint

    def find_symmetric_solution(self, component: str) -> Checkpoint | None:
        """A component's symmetric 4-bit solution, beside what its folder holds; the first by name."""

        def is_symmetric_int4(scheme: dict[str, Any]) -> bool:
            symmetric = scheme.get("bits") == 4 and not scheme.get("zero_point")
            return symmetric and scheme.get("group_size") != "channel"

        return self._find_solution(component, is_symmetric_int4)

    def find_int8_solution(self, component: str, activations: str) -> Checkpoint | None:
        """A component's solution for activations that are rounded as said; the first by name."""
        return self._find_solution(component, lambda scheme: scheme.get("activations") == activations)

    def _find_solution(self, component: str, is_suitable: Callable[[dict[str, Any]], bool]) -> Checkpoint | None:
        """The first solution by name whose scheme fits."""
        solutions = (Checkpoint(folder) for folder in sorted(self.folder.glob(f"solutions/*/{component}")))
        return next((one for one in solutions if is_suitable(one.load_config().get("scheme", {}))), None)

    def configs(self) -> dict[str, Any]:
        """What the family's host reads: each component's config, without how its weights are stored, by folder."""
        return _load_configs(self.folder)

    def require_valid_size(self, height: int, width: int) -> None:
        """Looks at a size in pixels, where the family has no host to say what is wrong.

        Raises:
            UserError: a picture cannot have it, or the VAE is of an unknown class.
        """
        blocks = self.configs().get("vae", {}).get("block_out_channels")
        if blocks is None:
            raise UserError(f"{self.folder / 'vae'} holds no AutoencoderKL, which is all that can be exported.")
        multiple = self.family.patch_size * 2 ** (len(blocks) - 1)
        if height % multiple or width % multiple or min(height, width) <= 0:
            raise UserError(
                f"A picture of {height}x{width} cannot be painted; both sides must be multiples of {multiple}."
            )

    def with_extra_graphs(self, names: Sequence[str]) -> SourcePipeline:
        """The model with further graphs of its family.

        Raises:
            UserError: the family has none of that name.
        """
        extra_graphs = {graph.name: graph for graph in self.family.optional_graphs}
        unknown = [name for name in names if name not in extra_graphs]
        if unknown:
            available = f"there is {', '.join(extra_graphs)}" if extra_graphs else "there is none"
            raise UserError(
                f"There is no further graph {unknown[0]!r} of the class {self.family.pipeline_class}; {available}."
            )
        return replace(
            self, family=replace(self.family, graphs=(*self.family.graphs, *(extra_graphs[name] for name in names)))
        )

    def verify_and_hash(self, progress: Progress = no_progress) -> list[artifact.FileRecord]:
        """Every file with its SHA-256.

        Raises:
            UserError: a file is not what it was when the pipeline was pressed.
        """
        files = artifact.hash_files(self.folder, progress)
        recorded = self.manifest.files if self.manifest else files
        changed = sorted({file.path for file in set(files) ^ set(recorded)})
        if changed:
            raise UserError(
                f"{self.folder / changed[0]} was changed since it was quantized (manifest.json has another SHA-256); "
                "quantize again."
            )
        return files


def open_source(folder: Path) -> SourcePipeline:
    """The model of a diffusers folder, or of an artifact folder.

    Raises:
        UserError: it is neither, the artifact has no manifest, or nothing is known of its pipeline's class.
    """
    model_folder = folder / "model"
    if not (folder / "model_index.json").exists():
        if not model_folder.is_dir():
            raise UserError(
                f"{folder} holds no model/ and no model_index.json; make one with 'edgepress quantize', or give a "
                "diffusers folder with --model."
            )
        manifest = artifact.read_manifest(folder)
        if manifest is None:
            raise UserError(
                f"{folder / 'manifest.json'} is missing, so that nothing says whether model/ is what was quantized; "
                f"quantize again, or give --model {model_folder} to take it as it is."
            )
        return SourcePipeline(model_folder, _load_family(model_folder), manifest)
    manifest = artifact.read_manifest(folder.parent) if folder.name == "model" else None
    return SourcePipeline(folder, _load_family(folder), manifest)


def _load_family(folder: Path) -> Family:
    """The family of a pipeline folder, with the graphs that its configs ask for."""
    family, configs = get_family(read_pipeline_class(folder)), _load_configs(folder)
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    graphs = [graph for graph in family.graphs if not graph.optional or any(index.get(graph.component) or ())]
    return replace(family, graphs=tuple(graph.for_config(configs.get(graph.component, {})) for graph in graphs))


def _load_configs(folder: Path) -> dict[str, Any]:
    configs = {}
    for path in sorted(folder.glob("*/*config.json")):
        if path.name in ("config.json", "scheduler_config.json"):
            content = json.loads(path.read_text("utf-8"))
            configs[path.parent.name] = {key: value for key, value in content.items() if key != "quantization_config"}
    return configs


def list_tokenizer_folders(model: SourcePipeline) -> list[Path]:
    """The folders of the pipeline's tokenizers."""
    return [path for path in sorted(model.folder.glob("tokenizer*")) if path.is_dir()]


def read_tokenizer_files(model: SourcePipeline, names: Sequence[str]) -> dict[str, str]:
    """The tokenizer's files by name, as text; a chat template that stands in tokenizer_config.json becomes a file.

    Raises:
        UserError: one is missing.
    """
    folder = model.folder / "tokenizer"
    files = {name: (folder / name).read_text("utf-8") for name in names if (folder / name).is_file()}
    config = json.loads(files.get("tokenizer_config.json", "{}"))
    if "chat_template.jinja" not in files and isinstance(config.get("chat_template"), str):
        files["chat_template.jinja"] = config["chat_template"]
    missing = [name for name in names if name not in files]
    if missing:
        raise UserError(f"{folder / missing[0]} is missing; save the pipeline anew with save_pretrained().")
    return files
