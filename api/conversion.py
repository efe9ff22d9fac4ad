"""Makes a diffusers folder of a single-file checkpoint and of the pipeline that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..common.arguments import check_arguments
from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..common.requirements import requires_extra
from ..pipelines.hub import resolve_pipeline
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX
from ..storage.new_folder import check_new_folder
from ..storage.relative_path import is_file_name
from ..storage.safetensors_header import read_tensor_headers


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
    from ..pipelines.single_file_pipeline import write_pipeline

    converted = write_pipeline(source, pipeline, target, component, progress)
    num_weights = sum(tensor.numel() for part in converted for tensor in part.tensors.values())
    return ConversionResult(target, tuple(sorted(part.component for part in converted)), num_weights)


def _check_component_name(pipeline: Path, component: str | None) -> None:
    """Raises UserError where a pipeline has no component of a name, whatever the file holds."""
    index = read_json_object(pipeline / MODEL_INDEX)
    names = [name for name in index if is_file_name(name) and (pipeline / name / "config.json").is_file()]
    if component is not None and component not in names:
        raise UserError(f"{pipeline} has no component {component!r}. Choose from: {', '.join(names)}.")
