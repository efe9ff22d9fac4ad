"""Makes a diffusers folder of a single-file checkpoint and of the pipeline that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.arguments import check_arguments
from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..common.requirements import requires_extra
from ..pipelines.hub import resolve_pipeline
from ..storage.files import list_files
from ..storage.new_folder import check_new_folder, link_or_copy, new_folder
from ..storage.preflight import check_disk_space
from ..storage.weight_files import WEIGHT_FILE_STEMS

if TYPE_CHECKING:
    from torch import Tensor

    from ..pipelines.single_file import ConvertedComponent

STAGE = "writing weights"


@dataclass(frozen=True)
class ConversionResult:
    """A new diffusers folder. `print` says what is in it.

    Attributes:
        folder: The folder.
        component: The component whose weights are those of the file.
        num_weights: Number of its parameters.
    """

    folder: Path
    component: str
    num_weights: int

    def __str__(self) -> str:
        return (
            f"{self.folder}: the {self.component} is that of the file, {self.num_weights:,} parameters; everything "
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
            ComfyUI keeps in `diffusion_models`.
        base: The pipeline that it belongs to: `demo`, a diffusers folder, or a Hub id.
        output: The folder to write, which must be new or empty.
        component: The component's folder in the pipeline. Default: the one that the file fits.
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
    from ..pipelines.single_file import convert_single_file
    from ..storage.checkpoint import write_sharded

    converted = convert_single_file(source, pipeline, component)
    check_disk_space(target, source.stat().st_size)
    with new_folder(target) as folder:
        config = f"{converted.component}/config.json"
        for name in list_files(pipeline):
            if Path(name).parts[0] != converted.component or name == config:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(pipeline / name, folder / name)
        tensors = _iterate(converted, progress)
        write_sharded(tensors, folder / converted.component, WEIGHT_FILE_STEMS["diffusers"])
    return ConversionResult(target, converted.component, sum(tensor.numel() for tensor in converted.tensors.values()))


def _iterate(converted: ConvertedComponent, progress: Progress) -> Iterator[tuple[str, Tensor]]:
    for number, (name, tensor) in enumerate(converted.tensors.items()):
        progress(STAGE, number, len(converted.tensors))
        yield name, tensor.contiguous()
    progress(STAGE, len(converted.tensors), len(converted.tensors))
