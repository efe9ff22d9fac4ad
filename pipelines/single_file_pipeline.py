"""Makes diffusers folders of single-file checkpoints: the weights of the file, and everything else of a pipeline.

A file that is given as a model gets a folder in the user's cache. The pipeline that it belongs to is the one that
diffusers' `from_single_file` infers from its tensors.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..common.user_folders import get_cache_folder
from ..storage.checkpoint import write_sharded
from ..storage.files import list_files, read_json_object
from ..storage.layout import MODEL_INDEX
from ..storage.new_folder import link_or_copy, new_folder
from ..storage.preflight import check_disk_space
from ..storage.safetensors_header import read_tensor_headers
from ..storage.weight_files import WEIGHT_FILE_STEMS, find_weight_folders
from .component_conversion import ConvertedComponent, convert_single_file
from .whole_checkpoint import convert_whole_checkpoint, is_whole

STAGE = "writing weights"
DEFAULT_KIND, DENOISER = "v1", "model.diffusion_model."  # what diffusers infers where nothing else fits
logger = logging.getLogger(__name__)


def write_pipeline(
    file: Path, base: Path, output: Path, component: str | None = None, progress: Progress = no_progress
) -> list[ConvertedComponent]:
    """Writes a pipeline folder. Files that stay as they are become links of the same content where the disk allows it.

    Args:
        file: The safetensors file.
        base: The folder of the pipeline that it belongs to.
        output: The folder to write, which must be new or empty.
        component: The one component to take; None for the one that the file fits, or all of a whole checkpoint.
        progress: Called with a stage, what is done and the total.

    Returns:
        The components whose weights are those of the file.

    Raises:
        UserError: The file does not fit the pipeline, or the folder cannot be written.
    """
    converted = _read_components(file, base, component)
    taken = {part.component for part in converted}
    _require_weights(base, taken, file)
    check_disk_space(output, file.stat().st_size)
    with new_folder(output) as folder:
        for name in list_files(base):
            if Path(name).parts[0] not in taken or name in {f"{part}/config.json" for part in taken}:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(base / name, folder / name)
        index = read_json_object(base / MODEL_INDEX)
        for part in converted:
            stem = WEIGHT_FILE_STEMS[index[part.component][0]]
            write_sharded(_iterate(part, progress), folder / part.component, stem)
    return converted


def open_single_file(file: Path, find_pipeline: Callable[[str], Path]) -> Path:
    """Finds the folder of a file that is given as a model, and makes it if there is none of the file as it is now.

    Args:
        file: The safetensors file.
        find_pipeline: Returns the folder of a model of the Hugging Face Hub.

    Raises:
        UserError: diffusers does not know what the file holds, the pipeline that it belongs to cannot be had, or the
            file does not fit it.
    """
    stat = file.stat()
    key = hashlib.sha256(repr((str(file.resolve()), stat.st_size, stat.st_mtime_ns)).encode()).hexdigest()[:16]
    folder = get_cache_folder() / "models" / f"{file.stem}-{key}"
    if folder.is_dir():
        return folder
    remedy = (
        f"Make a folder of it with 'edgepress convert {file} --base MODEL --output FOLDER', where MODEL is the "
        "pipeline that it belongs to."
    )
    base = _infer_base(file, remedy)
    try:
        pipeline = find_pipeline(base)
    except UserError as error:
        raise UserError(f"{file} belongs to {base} by its tensors, which cannot be had: {error} {remedy}") from error
    logger.warning("%s gets the folder %s, with everything else of %s.", file, folder, base)
    write_pipeline(file, pipeline, folder)
    return folder


def _infer_base(file: Path, remedy: str) -> str:
    """The model of the Hugging Face Hub whose configs diffusers would take for a file."""
    from diffusers.loaders import single_file_utils

    headers = read_tensor_headers(file)
    shapes = {header.name: torch.empty(header.shape, device="meta") for header in headers}
    try:
        kind = single_file_utils.infer_diffusers_model_type(shapes)
        base: str = single_file_utils.DIFFUSERS_DEFAULT_PIPELINE_PATHS[kind]["pretrained_model_name_or_path"]
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{file} holds no model that diffusers knows by its tensors. {remedy}") from error
    if kind == DEFAULT_KIND and not any(name.startswith(DENOISER) for name in shapes):
        raise UserError(f"{file} holds no model that diffusers knows by its tensors. {remedy}")
    return base


def _read_components(file: Path, pipeline: Path, component: str | None) -> list[ConvertedComponent]:
    if not is_whole(file):
        return [convert_single_file(file, pipeline, component)]
    converted = convert_whole_checkpoint(file, pipeline)
    chosen = [part for part in converted if component in (None, part.component)]
    if not chosen:
        names = ", ".join(part.component for part in converted)
        raise UserError(f"{file} has no component {component!r}. Choose from: {names}.")
    return chosen


def _require_weights(pipeline: Path, taken: Collection[str], file: Path) -> None:
    """Raises UserError where neither the file nor the pipeline has the weights of a component."""
    stored = {folder.name for folder in find_weight_folders(pipeline)}
    for name, entry in read_json_object(pipeline / MODEL_INDEX).items():
        is_model = isinstance(entry, list) and any(entry) and (pipeline / name / "config.json").is_file()
        if is_model and name not in stored and name not in taken:
            raise UserError(
                f"Neither {file} nor {pipeline} has the weights of the {name}. Give a complete pipeline to "
                "'edgepress convert --base'."
            )


def _iterate(converted: ConvertedComponent, progress: Progress) -> Iterator[tuple[str, Tensor]]:
    for number, (name, tensor) in enumerate(converted.tensors.items()):
        progress(STAGE, number, len(converted.tensors))
        yield name, tensor.contiguous()
    progress(STAGE, len(converted.tensors), len(converted.tensors))
