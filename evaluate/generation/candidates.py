"""The sides of a comparison: what a folder holds, and what the candidates that are given are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...common.errors import UserError
from ...runtime.onnx import exported
from ...runtime.rknn import exported as parts
from ..images.image_file import list_images
from ..results.schema import SystemKind

EXPORT_FOLDERS = ("model", "onnx", parts.RKNN_FOLDER)  # what an artifact may hold that paints
CANDIDATE_PATTERN = re.compile(r"(?:(?P<name>[^=/]+)=)?(?P<folder>.+?)(?:@(?P<dtype>float32|bfloat16))?", re.DOTALL)


@dataclass(frozen=True)
class ImageSource:
    """What paints, or has painted: a folder of a kind.

    dtype: what a diffusers pipeline computes in, where it is not the recipe's.
    """

    kind: SystemKind
    folder: Path
    dtype: str | None = None


def detect_image_source(folder: Path) -> ImageSource:
    """What a folder is: a diffusers pipeline, exported graphs or parts, or pictures.

    Raises:
        UserError: it is none of these.
    """
    if (folder / "model_index.json").exists():
        return ImageSource("diffusers", folder)
    if (folder / exported.CONFIG_FILE).exists():
        return ImageSource("rknn" if parts.is_rknn_artifact(folder) else "onnx", folder)
    if folder.is_dir() and list_images(folder):
        return ImageSource("images", folder)
    raise UserError(
        f"There is no pressed pipeline in {folder}, nor graphs or pictures; run `edgepress quantize` first, or name a "
        "folder that holds one."
    )


def parse_candidates(specs: Sequence[str]) -> dict[str, ImageSource]:
    """The candidates that are given as `[NAME=]DIR[@DTYPE]`, by name; an artifact stands for all that it holds.

    A folder `model`, `onnx` or `rknn` without a name is called after the folder that it is in as well.

    Raises:
        UserError: a folder holds nothing that paints, or two candidates are called the same.
    """
    candidates: dict[str, ImageSource] = {}
    for one in specs:
        for name, side in _parse_candidate(one):
            if name in candidates:
                raise UserError(f"Two candidates are called {name!r}; give names, such as --candidate int4={one}.")
            candidates[name] = side
    return candidates


def _parse_candidate(spec: str) -> list[tuple[str, ImageSource]]:
    match = CANDIDATE_PATTERN.fullmatch(spec)
    if match is None:
        raise UserError("An empty --candidate was given; write --candidate [NAME=]DIR.")
    folder, dtype = Path(match["folder"]), match["dtype"]
    folders = [folder / form for form in EXPORT_FOLDERS if _can_generate(folder / form)]
    if folders and not _can_generate(folder):
        stem = match["name"] or folder.resolve().name
        return [(f"{stem}-{form.name}", _with_dtype(detect_image_source(form), dtype)) for form in folders]
    source = detect_image_source(folder)
    if dtype and source.kind != "diffusers":
        raise UserError(f"{folder} is no diffusers pipeline, and computes in no dtype of ours; leave @{dtype} out.")
    return [(match["name"] or _get_default_name(folder), _with_dtype(source, dtype))]


def _can_generate(folder: Path) -> bool:
    return (folder / "model_index.json").exists() or (folder / exported.CONFIG_FILE).exists()


def _get_default_name(folder: Path) -> str:
    name = folder.resolve().name
    return f"{folder.resolve().parent.name}-{name}" if name in EXPORT_FOLDERS else name


def _with_dtype(source: ImageSource, dtype: str | None) -> ImageSource:
    if dtype and source.kind == "diffusers":
        return ImageSource(source.kind, source.folder, dtype)
    return source
