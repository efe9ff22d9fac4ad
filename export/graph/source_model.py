"""The diffusers pipeline that is exported, opened once: its family, configs, weights and tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from ...common.errors import UserError
from ...common.progress import Progress, no_progress
from ...models.base.family import Family
from ...models.registry import get_family
from ...pipelines.families import find_family
from ...pipelines.hub import read_pipeline_arguments, read_pipeline_class
from ...recipes.key_errors import RecipeValueError
from ...recipes.schema import Scheme
from ...storage.checkpoint import Checkpoint
from ...storage.files import FileRecord, hash_files, list_files, read_json_object
from ...storage.hash_memory import HashMemory
from ...storage.integrity import find_problems
from ...storage.layout import (
    MODEL,
    MODEL_INDEX,
    SCHEDULER_CONFIG,
    Artifact,
    is_pipeline,
    locate_folder,
    solution_folders,
)
from ...storage.manifest import Manifest, read_manifest
from ...storage.recognition import reject_path
from ...storage.weight_files import find_stray_files
from .tokenizer_files import resolve_tokenizer_files


class SourcePipeline:
    """A diffusers folder whose configs and checkpoints are each read once. Create it with `open_source`.

    Opening it imports no torch, so that what is wrong with it is said at once.

    Attributes:
        folder: The diffusers folder.
        family: Its model family, with the graphs to export.
        configs: The configs of components and scheduler by folder name, without how weights are stored.
        manifest: The manifest of the artifact that contains the folder; None outside of an artifact.
    """

    def __init__(
        self, folder: Path, family: Family, configs: Mapping[str, Any], manifest: Manifest | None = None
    ) -> None:
        self.folder, self.family, self.configs, self.manifest = folder, family, configs, manifest
        self._checkpoints: dict[str, Checkpoint] = {}
        self._tokenizer_files: dict[str, Mapping[str, str]] = {}

    def open_checkpoint(self, component: str) -> Checkpoint:
        """Returns a component's weights under the names of its modules, opened at the first call.

        Raises:
            UserError: The component is missing, or its weights cannot be read.
        """
        if component not in self._checkpoints:
            description = self.family.component(component)
            prefix = description.weight_prefix if description else ""
            checkpoint = Checkpoint(self.folder / component, prefix)
            embeddings = description.embeddings if description else ()
            if not all(f"{name}.weight" in checkpoint or f"{name}.codes" in checkpoint for name in embeddings):
                from ...pipelines.component_weights import use_module_names
                from ...pipelines.empty_modules import build_empty_component

                checkpoint = use_module_names(checkpoint, build_empty_component(self.folder / component))
            self._checkpoints[component] = checkpoint
        return self._checkpoints[component]

    def check_recorded(self, progress: Progress = no_progress) -> None:
        """Compares the files with the manifest where there is one, without torch.

        Files that did not change since they were read last are not read again; what is exported is, by
        `verify_and_hash`.

        Raises:
            UserError: A file changed since the pipeline was quantized.
        """
        if self.manifest is None:
            return
        recorded = {file.path for file in self.manifest.files}
        for name in sorted(recorded ^ set(list_files(self.folder))):
            self._reject_changed(name)
        with HashMemory() as hashes:
            for problem in find_problems(self.folder, self.manifest.files, hashes, progress):
                self._reject_changed(problem.path)

    def check_weights(self) -> None:
        """Checks the weights of all components against their classes. Reads only headers.

        Raises:
            UserError: Weights are corrupt, of a format that is not read, or not those of the class that config.json
                describes.
        """
        from ...pipelines.component_weights import check_described_component, check_pipeline_weights

        check_pipeline_weights(self.folder)
        for component in self.family.components:
            if not (self.folder / component.name).is_dir():
                continue  # one that the pipeline can do without
            check_described_component(self.open_checkpoint(component.name), component)

    def has_int4(self, component: str) -> bool:
        """Whether any weight of a component has 4 bits, of which eight share an int32."""
        checkpoint = self.open_checkpoint(component)
        return any(name.endswith(".qweight") and checkpoint.dtype(name) == "I32" for name in checkpoint.names())

    def find_symmetric_solution(self, component: str) -> Checkpoint | None:
        """Returns the first symmetric INT4 solution of a component, by name."""
        return self._find_solution(component, lambda scheme: scheme.is_symmetric_int4)

    def find_int8_solution(self, component: str, activations: str) -> Checkpoint | None:
        """Returns the first solution of a component whose activations are quantized as given, by name.

        Args:
            component: Name of the component.
            activations: `dynamic` or `static`.
        """
        return self._find_solution(component, lambda scheme: scheme.activations == activations)

    def find_8bit_solution(self, component: str) -> Checkpoint | None:
        """Returns the first solution of a component in 8 bits with one scale per output channel, by name."""
        return self._find_solution(component, lambda scheme: scheme.bits == 8 and scheme.group_size == "channel")

    def _find_solution(self, component: str, is_suitable: Callable[[Scheme], bool]) -> Checkpoint | None:
        for folder in solution_folders(self.folder, component):
            solution = Checkpoint(folder)
            if is_suitable(Scheme.model_validate(solution.load_config().get("scheme", {}))):
                return solution
        return None

    def verify_and_hash(self, progress: Progress = no_progress) -> list[FileRecord]:
        """Hashes every file, and compares the hashes with the manifest where there is one.

        Raises:
            UserError: A file changed since the pipeline was quantized.
        """
        skip = () if self.manifest else find_stray_files(self.folder)
        files = hash_files(self.folder, progress, skip=skip)
        recorded = self.manifest.files if self.manifest else files
        changed = sorted({file.path for file in set(files) ^ set(recorded)})
        if changed:
            self._reject_changed(changed[0])
        return files

    def _reject_changed(self, name: str) -> NoReturn:
        """Raises UserError for a file that is not as the manifest says."""
        file = self.folder / name
        assert self.manifest is not None
        if all(record.path != name for record in self.manifest.files):
            raise UserError(f"{file} was added since the model was quantized. Move it out of the folder.")
        if not file.exists():
            raise UserError(f"{file} is missing, which manifest.json lists. Copy it again, or quantize again.")
        raise UserError(
            f"{file} was changed since it was quantized: its SHA-256 is not the one in manifest.json. Quantize again."
        )

    def list_tokenizer_folders(self) -> list[Path]:
        """Returns the folders of the pipeline's tokenizers, sorted."""
        return [path for path in sorted(self.folder.glob("tokenizer*")) if path.is_dir()]

    def read_tokenizer_files(
        self, tokenizer: str = "tokenizer", has_template: bool = True, is_padded: bool = False
    ) -> Mapping[str, str]:
        """Returns the text of the files that the runtime's tokenizer reads, by name, read at the first call.

        Args:
            tokenizer: Folder of the tokenizer.
            has_template: Whether prompts are messages of a chat.
            is_padded: Whether short prompts are padded.

        Raises:
            UserError: A file is missing, the tokenizer cannot be loaded, or has a setting that the runtime lacks.
        """
        if tokenizer not in self._tokenizer_files:
            files = resolve_tokenizer_files(self.folder, tokenizer, has_template, is_padded)
            self._tokenizer_files[tokenizer] = files
        return self._tokenizer_files[tokenizer]

    def write_tokenizer_files(self, folder: Path, has_template: bool = True) -> None:
        """Writes the files that the runtime's tokenizer reads into a new folder, which has the tokenizer's name."""
        folder.mkdir(parents=True)
        for name, text in self.read_tokenizer_files(folder.name, has_template).items():
            (folder / name).write_text(text, "utf-8")


def open_source(folder: Path, extra_graphs: Sequence[str] = (), *, needs_graphs: bool = True) -> SourcePipeline:
    """Opens a diffusers folder, or the model of an artifact folder.

    Args:
        folder: A diffusers folder, quantized or not, or an artifact folder.
        extra_graphs: Names of optional graphs of the family to export too.
        needs_graphs: Whether the family must be one with graphs; otherwise any class that diffusers knows will do.

    Raises:
        UserError: The folder is neither, the artifact has no manifest, the pipeline's class is unknown, or its family
            has no such optional graph.
    """
    if is_pipeline(folder):
        manifest = read_manifest(Artifact.containing(folder).path) if locate_folder(folder).name == MODEL else None
    else:
        folder, manifest = _open_artifact(Artifact(folder))
    configs = _load_configs(folder)
    family = _load_family(folder, configs, extra_graphs) if needs_graphs else find_family(folder)
    return SourcePipeline(folder, family, configs, manifest)


def _open_artifact(artifact: Artifact) -> tuple[Path, Manifest]:
    """Returns the model folder of an artifact, and the manifest."""
    if not artifact.path.exists():
        raise UserError(
            f"There is no artifact {artifact.path}. Create it with 'edgepress quantize', or pass a diffusers folder "
            "with --model."
        )
    if not artifact.has_model:
        advice = "Give a diffusers folder, or an artifact that 'edgepress quantize' made"
        raise reject_path(artifact.path, advice, _is_source)
    manifest = read_manifest(artifact.path)
    if manifest is None:
        problem = "another program's" if artifact.manifest.exists() else "missing"
        raise UserError(
            f"Cannot verify {artifact.model}: {artifact.manifest} is {problem}. Quantize again, or pass --model "
            f"{artifact.model} to export it unverified."
        )
    return artifact.model, manifest


def _is_source(folder: Path) -> bool:
    return is_pipeline(folder) or Artifact(folder).has_model


def _load_family(folder: Path, configs: Mapping[str, Any], extra_graphs: Sequence[str]) -> Family:
    """Returns the family of a pipeline folder, with the graphs that its configs and `extra_graphs` call for."""
    family = get_family(read_pipeline_class(folder))
    index = read_json_object(folder / MODEL_INDEX)
    graphs = [graph for graph in family.graphs if not graph.optional or any(index.get(graph.component) or ())]
    graphs = [graph.for_config(configs.get(graph.component, {})) for graph in graphs]
    optional = {graph.name: graph for graph in family.optional_graphs}
    unknown = [name for name in extra_graphs if name not in optional]
    if unknown:
        advice = f"Choose from: {', '.join(optional)}" if optional else "Leave it out: it has none"
        problem = f"{family.pipeline_class} has no optional graph {unknown[0]!r}. {advice}."
        raise RecipeValueError("export.extra_graphs", tuple(extra_graphs), problem)
    return replace(family, graphs=(*graphs, *(optional[name] for name in extra_graphs)))


def _load_configs(folder: Path) -> dict[str, Any]:
    configs = {}
    for path in sorted(folder.glob("*/*config.json")):
        if path.name in ("config.json", SCHEDULER_CONFIG):
            content = read_json_object(path, allow_infinity=path.name == SCHEDULER_CONFIG)
            configs[path.parent.name] = {key: value for key, value in content.items() if key != "quantization_config"}
    return configs | read_pipeline_arguments(folder)
