"""Says what a path leads to, for all commands alike: what they show, and why they refuse it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from ..common.errors import UserError
from .layout import (
    BENCH_RESULTS,
    CONFIG_NAME,
    EVALUATION_RESULTS,
    GENERATORS,
    MANIFEST,
    MODEL,
    MODEL_INDEX,
    RKNN,
    Artifact,
    is_export,
    is_of_another_program,
    is_pipeline,
    is_written_by_edgepress,
)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MAX_ENTRIES = 200  # of a folder that are looked at
MAX_LISTED = 3  # in a message


class PathKind(StrEnum):
    """What a path leads to; the value completes the sentence "PATH ...".

    Attributes:
        MISSING: Nothing.
        BROKEN_LINK: A link to nothing.
        PIPELINE: A diffusers pipeline.
        MODEL: The quantized pipeline of an artifact.
        EXPORT: An export, ONNX or RKNN.
        ARTIFACT: An artifact with at least one of these.
        COMPONENT: A component of a pipeline.
        RESULTS: A folder with results of an evaluation.
        BENCH: A folder with results of a benchmark.
        IMAGES: A folder of images.
        EMPTY: An empty folder.
        FOLDER: Any other folder.
        FILE: A file.
    """

    MISSING = "does not exist"
    BROKEN_LINK = "is a link to nothing"
    PIPELINE = "is a diffusers pipeline"
    MODEL = "is the quantized pipeline of an artifact"
    EXPORT = "is an export"
    ARTIFACT = "is an artifact"
    COMPONENT = "is a component of a pipeline"
    RESULTS = "holds results of an evaluation"
    BENCH = "holds results of a benchmark"
    IMAGES = "is a folder of images"
    EMPTY = "is an empty folder"
    FOLDER = "is a folder"
    FILE = "is a file"


FILE_NAMES = {
    MODEL_INDEX: "is the index of a pipeline",
    MANIFEST: "is a manifest",
    CONFIG_NAME: "describes an export",
    EVALUATION_RESULTS: "holds results of an evaluation",
    BENCH_RESULTS: "holds results of a benchmark",
}
FILE_SUFFIXES = {
    ".onnx": "is a single ONNX graph",
    ".rknn": "is a single RKNN part",
    ".engine": "is a TensorRT engine",
    ".safetensors": "is a single file of weights",
    ".gguf": "is a single file of weights",
    **dict.fromkeys((".bin", ".ckpt", ".pt", ".pth"), "is a single file of pickled weights"),
    **dict.fromkeys((".yaml", ".yml"), "is a YAML file, such as a recipe"),
    **dict.fromkeys((".jsonl", ".csv", ".tsv", ".parquet"), "is a table, such as a set of prompts"),
    **dict.fromkeys(IMAGE_SUFFIXES, "is an image"),
    ".json": "is a JSON file",
}


def recognize_path(path: Path) -> PathKind:
    """Says what a path leads to, from the names of files and a few small JSON files."""
    if not os.path.exists(path):  # noqa: PTH110  a name that is too long is an error to Path
        return PathKind.BROKEN_LINK if os.path.islink(path) else PathKind.MISSING  # noqa: PTH114
    if not path.is_dir():
        return PathKind.FILE
    if is_pipeline(path):
        folder = path.resolve()
        is_published = folder.name == MODEL and is_written_by_edgepress(Artifact.containing(folder).manifest)
        return PathKind.MODEL if is_published else PathKind.PIPELINE
    if is_export(path):
        return PathKind.EXPORT
    if is_artifact(path):
        return PathKind.ARTIFACT
    if (path / "config.json").is_file() and is_pipeline(path.resolve().parent):
        return PathKind.COMPONENT
    names = _list_names(path)
    if EVALUATION_RESULTS in names:
        return PathKind.RESULTS
    if BENCH_RESULTS in names:
        return PathKind.BENCH
    if any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
        return PathKind.IMAGES
    return PathKind.FOLDER if names else PathKind.EMPTY


def is_artifact(path: Path) -> bool:
    """Whether a folder has a quantized pipeline or an export."""
    artifact = Artifact(path)
    return artifact.has_model or artifact.has_onnx or artifact.has_rknn


def has_export(path: Path) -> bool:
    """Whether a folder is an export, or an artifact with one."""
    return is_export(path) or Artifact(path).has_onnx or Artifact(path).has_rknn


def describe_path(path: Path) -> str:
    """What a path leads to, as what follows it in a sentence, such as "is an artifact with model/ and onnx/"."""
    kind = recognize_path(path)
    if kind is PathKind.FILE:
        return FILE_NAMES.get(path.name) or FILE_SUFFIXES.get(path.suffix.lower(), kind)
    if kind is PathKind.MODEL:
        return f"is the quantized pipeline of the artifact {_get_parent(path)}"
    if kind is PathKind.EXPORT:
        return f"is an export{' for an NPU' if path.resolve().name == RKNN else ''}"
    if kind is PathKind.ARTIFACT:
        has = [name for name in GENERATORS if is_pipeline(path / name) or is_export(path / name)]
        return f"is an artifact with {' and '.join(f'{name}/' for name in has)}"
    if kind is PathKind.COMPONENT:
        return f"is a component of the pipeline {_get_parent(path)}"
    if kind is PathKind.FOLDER:
        if (path / CONFIG_NAME).is_file() and is_of_another_program(path / CONFIG_NAME):
            return f"is a folder whose {CONFIG_NAME} is another program's"
        names = _list_names(path)
        more = " and more" if len(names) > MAX_LISTED else ""
        return f"is a folder with {', '.join(names[:MAX_LISTED])}{more}"
    return kind


def reject_path(path: Path, advice: str, is_suitable: Callable[[Path], bool] | None = None) -> UserError:
    """The error for a path that leads to something else than what is needed.

    Args:
        path: The path.
        advice: What to do, without a period, such as "Give an artifact".
        is_suitable: Whether a path is what is needed. The first in or above the given one is recommended.
    """
    nearby = next(filter(is_suitable, _list_nearby(path)), None) if is_suitable else None
    example = f", such as {nearby}" if nearby else describe_without_suffix(path)
    return UserError(f"{path} {describe_path(path)}. {advice}{example}.")


def describe_without_suffix(path: Path) -> str:
    """What follows advice where a path leads to nothing, but would lead to something without @ and what follows it."""
    place, _, suffix = str(path).rpartition("@")
    return f"; {place} exists without @{suffix}" if place and os.path.exists(place) else ""  # noqa: PTH110  as above


def require_export(path: Path) -> None:
    """Checks that a path is an artifact or an export, which images can be generated from without torch.

    Raises:
        UserError: It is something else, or an artifact without an export.
    """
    if has_export(path):
        return
    kind = recognize_path(path)
    if kind is PathKind.MISSING:
        raise UserError(f"Artifact folder {path} does not exist. Create it with 'edgepress export onnx'.")
    if kind is PathKind.ARTIFACT:
        raise UserError(
            f"{path} {describe_path(path)}: nothing was exported from it. Run 'edgepress export onnx' first, or give "
            "an artifact that was exported."
        )
    raise reject_path(path, "Give an artifact that 'edgepress export onnx' or 'edgepress export rknn' made", has_export)


def _list_nearby(path: Path) -> Iterator[Path]:
    """What may have been meant instead of a path: what is in it, and the folders above it."""
    if path.is_dir():
        yield from (path / name for name in GENERATORS)
        yield from (path / name for name in _list_names(path))
        yield Artifact(path).evaluation / EVALUATION_RESULTS
    if path.exists():
        yield from path.parents[:2]


def _get_parent(path: Path) -> Path:
    return path.parent if path.name not in ("", "..") else path.resolve().parent


def _list_names(folder: Path) -> list[str]:
    """The first names in a folder that are not hidden, sorted; none if it cannot be read."""
    names: list[str] = []
    with suppress(OSError):
        for entry in folder.iterdir():
            if not entry.name.startswith("."):
                names.append(entry.name)
            if len(names) == MAX_ENTRIES:
                break
    return sorted(names)
