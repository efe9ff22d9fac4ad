"""Describes what is compared: its kind, a digest of its content, its size, and whether its noise is the reference's."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection
from pathlib import Path

from ..common.progress import Progress
from ..pipelines.optimum_pipelines import sum_graph_bytes
from ..pipelines.quantization_packages import read_quant_methods
from ..storage.files import hash_file
from ..storage.manifest import LoraRecord
from ..storage.parameter_count import count_parameters
from ..storage.provenance import describe_missing_hashes, read_recorded_files
from ..storage.weight_files import find_weight_folders, select_weight_files
from .generation.candidates import ImageSource
from .generation.generators import detect_engine
from .generation.server import OWN_NOISE, connect
from .results.folder_identity import FolderIdentity, add_loras, hash_folder
from .results.locations import name_location
from .results.schema import SystemInfo

EXPORTS = ("onnx", "rknn")  # kinds of systems that record hashes of their files
COUNTED = {"awq"}  # methods whose weights can be counted
logger = logging.getLogger(__name__)


def describe_system(
    source: ImageSource, dtype: str, reference: SystemInfo | None, progress: Progress, stage: str
) -> SystemInfo:
    """Describes the reference or a candidate. All of its files are read.

    Args:
        source: What it is.
        dtype: Compute dtype of diffusers pipelines that have none of their own.
        reference: The description of the reference; None if this is the reference.
        progress: Called with `stage` and the number of bytes read and in total.
        stage: Name of the stage.

    Raises:
        UserError: A file is not as it was published, or a server does not answer.
    """
    num_weights = reference.num_weights if reference else _count_weights(source)
    if source.kind == "server":
        system = _describe_server(source)
    elif source.files and reference is not None:
        system = _describe_files(source, reference)
    else:
        system = _describe_folder(source, progress, stage)
    bits = 8 * system.weight_bytes / num_weights if system.weight_bytes and num_weights else None
    compute_dtype = (source.dtype or dtype) if source.kind == "diffusers" else None
    return system.model_copy(update={"dtype": compute_dtype, "num_weights": num_weights, "bits_per_weight": bits})


def _describe_folder(source: ImageSource, progress: Progress, stage: str) -> SystemInfo:
    folder = hash_folder(source.folder, progress, stage)
    loras = _record_loras(source)
    if source.kind in EXPORTS and not read_recorded_files(source.folder):
        logger.warning("%s", describe_missing_hashes(source.folder))
    is_pipeline = source.kind == "diffusers"
    return SystemInfo(
        kind=source.kind,
        folder=folder.model_copy(update={"sha256": add_loras(folder.sha256, loras)}),
        dtype=None,
        engine=detect_engine(source),
        loras=tuple(map(str, loras)),
        formats=read_quant_methods(source.folder) if is_pipeline else {},
        weight_bytes=_measure_weights(source, folder.bytes),
    )


def _describe_files(source: ImageSource, reference: SystemInfo) -> SystemInfo:
    """Single files, with the other components of the reference."""
    hashes = [(replacement.component, hash_file(replacement.file)) for replacement in source.files]
    sizes = [replacement.file.stat().st_size for replacement in source.files]
    rest = _sum_weights(source.folder, {replacement.component for replacement in source.files})
    content = repr((reference.folder.sha256, hashes))
    return SystemInfo(
        kind=source.kind,
        folder=FolderIdentity(
            path=",".join(name_location(replacement.file) for replacement in source.files),
            sha256=hashlib.sha256(content.encode()).hexdigest(),
            files=len(sizes),
            bytes=sum(sizes),
        ),
        dtype=None,
        formats={
            replacement.component: replacement.file.suffix.removeprefix(".").lower() for replacement in source.files
        },
        weight_bytes=sum(sizes) + rest,
    )


def _describe_server(source: ImageSource) -> SystemInfo:
    server = connect(source.url)
    digest = hashlib.sha256(repr((server.url, server.model, server.engine)).encode()).hexdigest()
    return SystemInfo(
        kind=source.kind,
        folder=FolderIdentity(path=source.url, sha256=digest, files=0, bytes=0),
        dtype=None,
        engine=" ".join(part for part in (server.model, server.engine) if part) or None,
        own_noise=None if server.takes_noise else OWN_NOISE,
    )


def _record_loras(source: ImageSource) -> list[LoraRecord]:
    if not source.loras:
        return []
    from ..pipelines.lora_files import parse_lora

    return [parse_lora(text).record() for text in source.loras]


def _measure_weights(source: ImageSource, folder_bytes: int) -> int | None:
    """Bytes of the weights that a folder's images need; None of a folder of images."""
    if source.kind in EXPORTS:
        return folder_bytes
    if source.kind == "optimum":
        return sum_graph_bytes(source.folder)
    return _sum_weights(source.folder) if source.kind == "diffusers" else None


def _sum_weights(pipeline: Path, skip: Collection[str] = ()) -> int:
    """Bytes of the weight files that are loaded of a pipeline's components."""
    folders = [folder for folder in find_weight_folders(pipeline) if folder.name not in skip]
    return sum(file.stat().st_size for folder in folders for file in select_weight_files(folder).files)


def _count_weights(reference: ImageSource) -> int | None:
    """The number of weights of a pipeline; None if that cannot be seen from its files."""
    if reference.kind != "diffusers" or set(read_quant_methods(reference.folder).values()) - COUNTED:
        return None
    return count_parameters(reference.folder)
