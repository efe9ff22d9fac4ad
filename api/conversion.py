"""Makes a diffusers folder of a single-file checkpoint and of the pipeline that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..common.arguments import check_arguments
from ..common.errors import UserError
from ..common.name_list import list_names
from ..common.progress import Progress, no_progress
from ..common.requirements import requires_extra
from ..pipelines.hub import resolve_pipeline
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX
from ..storage.new_folder import check_new_folder
from ..storage.parameter_count import count_tensor_parameters, read_loaded_headers
from ..storage.relative_path import is_file_name
from ..storage.safetensors_header import TensorHeader, read_tensor_headers
from ..storage.weight_files import find_weight_folders, select_weight_files

SMALLEST_SHARE = 2


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
    headers = read_tensor_headers(source)
    _check_component_name(pipeline, component)
    _check_size(source, headers, pipeline, component)
    from ..pipelines.single_file_pipeline import write_pipeline

    converted = write_pipeline(source, pipeline, target, component, progress)
    num_weights = sum(tensor.numel() for part in converted for tensor in part.tensors.values())
    return ConversionResult(target, tuple(sorted(part.component for part in converted)), num_weights)


def _check_size(file: Path, headers: Sequence[TensorHeader], pipeline: Path, component: str | None) -> None:
    """Raises UserError where a file has too few weights for the component to take, or for any."""
    index = read_json_object(pipeline / MODEL_INDEX)
    entries = {name: entry for name, entry in index.items() if isinstance(entry, list) and entry[:1] == ["diffusers"]}
    folders = [folder for folder in find_weight_folders(pipeline) if folder.name in entries]
    if component is not None and component not in entries:
        names = ", ".join(folder.name for folder in folders) or "none"
        raise UserError(
            f"{pipeline} has no component {component!r} that diffusers reads from single files. Choose from: {names}."
        )
    sizes = {
        folder.name: sum(map(count_tensor_parameters, read_loaded_headers(select_weight_files(folder))))
        for folder in folders
        if component in (None, folder.name)
    }
    num_weights = sum(header.numel for header in headers)
    # Names, layouts and what is stored twice may differ, so that only much less than a component has is refused.
    if sizes and all(SMALLEST_SHARE * num_weights < size for size in sizes.values()):
        nearest = min(sizes, key=lambda name: sizes[name])
        raise UserError(
            f"{file} does not hold the {nearest} of {pipeline}: it has {num_weights:,} weights, in "
            f"{list_names(header.name for header in headers)}, and that has {sizes[nearest]:,}. Give the folder of the "
            "pipeline that it was made from."
        )


def _check_component_name(pipeline: Path, component: str | None) -> None:
    """Raises UserError where a pipeline has no component of a name, whatever the file holds."""
    index = read_json_object(pipeline / MODEL_INDEX)
    names = [name for name in index if is_file_name(name) and (pipeline / name / "config.json").is_file()]
    if component is not None and component not in names:
        raise UserError(f"{pipeline} has no component {component!r}. Choose from: {', '.join(names)}.")
