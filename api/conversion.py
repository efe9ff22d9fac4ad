"""Makes a diffusers folder of a single-file checkpoint and of the pipeline that it belongs to."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.arguments import check_arguments
from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..common.requirements import requires_extra
from ..pipelines.hub import resolve_pipeline
from ..storage.files import list_files, read_json_object
from ..storage.layout import MODEL_INDEX
from ..storage.new_folder import check_new_folder, link_or_copy, new_folder
from ..storage.preflight import check_disk_space
from ..storage.relative_path import is_file_name
from ..storage.safetensors_header import read_tensor_headers
from ..storage.weight_files import WEIGHT_FILE_STEMS, find_weight_folders

if TYPE_CHECKING:
    from torch import Tensor

    from ..pipelines.component_conversion import ConvertedComponent

STAGE = "writing weights"


@dataclass(frozen=True)
class ConversionResult:
    """A new diffusers folder. `print` says what is in it.

    Attributes:
        folder: The folder.
        components: The components whose weights are those of the file.
        num_weights: Number of their parameters.
    """

    folder: Path
    components: tuple[str, ...]
    num_weights: int

    def __str__(self) -> str:
        return (
            f"{self.folder}: {', '.join(self.components)} of the file, {self.num_weights:,} parameters; everything "
            "else is that of the pipeline."
        )


@check_arguments
@requires_extra("quantize")
def convert(
    file: str | Path,
    *,
    base: str | Path,
    output: str | Path,
    component: str | None = None,
    progress: Progress = no_progress,
) -> ConversionResult:
    """Makes a diffusers folder with the weights of a single-file checkpoint, which every command then takes as a model.

    Files that stay as they are become links of the same content where the disk allows it. One shard is in memory.

    Args:
        file: A safetensors file with one component under the names of its original release or of its class, such as
            ComfyUI keeps in `diffusion_models`, or a whole checkpoint with denoiser, VAE and text encoders, as it keeps
            in `checkpoints`.
        base: The pipeline that it belongs to: `demo`, a diffusers folder, or a Hub id.
        output: The folder to write, which must be new or empty.
        component: The folder of the one component to take. Default: the one that the file fits, or all of a whole
            checkpoint.
        progress: Called with a stage, what is done and the total.

    Returns:
        What was written. `print` shows it.

    Raises:
        UserError: Bad input, or a file that does not fit the pipeline.
    """
    source, target, pipeline = Path(file), Path(output), resolve_pipeline(str(base))
    if source.suffix.lower() != ".safetensors" or not source.is_file():
        what = "is no safetensors file" if source.exists() else "does not exist"
        raise UserError(f"{source} {what}. Give a single-file checkpoint in safetensors.")
    check_new_folder(target)
    read_tensor_headers(source)
    _check_component_name(pipeline, component)
    from ..storage.checkpoint import write_sharded

    converted = _read_components(source, pipeline, component)
    taken = {part.component for part in converted}
    _require_weights(pipeline, taken, source)
    check_disk_space(target, source.stat().st_size)
    with new_folder(target) as folder:
        for name in list_files(pipeline):
            if Path(name).parts[0] not in taken or name in {f"{part}/config.json" for part in taken}:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(pipeline / name, folder / name)
        index = read_json_object(pipeline / MODEL_INDEX)
        for part in converted:
            stem = WEIGHT_FILE_STEMS[index[part.component][0]]
            write_sharded(_iterate(part, progress), folder / part.component, stem)
    num_weights = sum(tensor.numel() for part in converted for tensor in part.tensors.values())
    return ConversionResult(target, tuple(sorted(taken)), num_weights)


def _read_components(file: Path, pipeline: Path, component: str | None) -> list[ConvertedComponent]:
    from ..pipelines.component_conversion import convert_single_file
    from ..pipelines.whole_checkpoint import convert_whole_checkpoint, is_whole

    if not is_whole(file):
        return [convert_single_file(file, pipeline, component)]
    converted = convert_whole_checkpoint(file, pipeline)
    chosen = [part for part in converted if component in (None, part.component)]
    if not chosen:
        names = ", ".join(part.component for part in converted)
        raise UserError(f"{file} has no component {component!r}. Choose from: {names}.")
    return chosen


def _check_component_name(pipeline: Path, component: str | None) -> None:
    """Raises UserError where a pipeline has no component of a name, whatever the file holds."""
    index = read_json_object(pipeline / MODEL_INDEX)
    names = [name for name in index if is_file_name(name) and (pipeline / name / "config.json").is_file()]
    if component is not None and component not in names:
        raise UserError(f"{pipeline} has no component {component!r}. Choose from: {', '.join(names)}.")


def _require_weights(pipeline: Path, taken: Collection[str], file: Path) -> None:
    """Raises UserError where neither the file nor the pipeline has the weights of a component."""
    stored = {folder.name for folder in find_weight_folders(pipeline)}
    for name, entry in read_json_object(pipeline / MODEL_INDEX).items():
        is_model = isinstance(entry, list) and any(entry) and (pipeline / name / "config.json").is_file()
        if is_model and name not in stored and name not in taken:
            raise UserError(
                f"Neither {file} nor {pipeline} has the weights of the {name}. Give a complete pipeline with --base."
            )


def _iterate(converted: ConvertedComponent, progress: Progress) -> Iterator[tuple[str, Tensor]]:
    for number, (name, tensor) in enumerate(converted.tensors.items()):
        progress(STAGE, number, len(converted.tensors))
        yield name, tensor.contiguous()
    progress(STAGE, len(converted.tensors), len(converted.tensors))
