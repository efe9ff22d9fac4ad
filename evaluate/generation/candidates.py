"""What an evaluation compares: the reference and the candidates, each a folder of a certain kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...common.errors import UserError
from ...runtime.rknn.exported import is_rknn_artifact
from ...storage.layout import GENERATORS, Artifact, is_export, is_pipeline
from ...storage.manifest import Manifest, read_manifest
from ...storage.pipeline_config import read_export_config
from ...storage.recognition import reject_path
from ..images.image_file import list_images
from ..results.schema import SystemKind

CANDIDATE_PATTERN = re.compile(r"(?:(?P<name>[^=/]+)=)?(?P<folder>.+?)(?:@(?P<dtype>float32|bfloat16))?", re.DOTALL)


@dataclass(frozen=True)
class ImageSource:
    """A folder that images come from: a diffusers pipeline, an ONNX or RKNN export, or image files.

    Attributes:
        kind: What the folder contains.
        folder: The folder.
        dtype: Compute dtype of a diffusers pipeline; None: that of the recipe.
        loras: LoRAs that are merged into the weights of a diffusers pipeline, as `PATH:WEIGHT`.
    """

    kind: SystemKind
    folder: Path
    dtype: str | None = None
    loras: tuple[str, ...] = ()


def detect_image_source(folder: Path) -> ImageSource:
    """Detects what a folder contains.

    Raises:
        UserError: It contains no pipeline, no export and no images.
    """
    if is_pipeline(folder):
        return ImageSource("diffusers", folder)
    if is_export(folder):
        return ImageSource("rknn" if is_rknn_artifact(folder) else "onnx", folder)
    if folder.is_dir() and list_images(folder):
        return ImageSource("images", folder)
    if not folder.exists():
        raise reject_path(folder, "Run 'edgepress quantize' first, or give another folder")
    raise reject_path(folder, "Give a pipeline, an export, or a folder of images", _can_generate)


def parse_candidates(specs: Sequence[str]) -> dict[str, ImageSource]:
    """Parses candidates given as `[NAME=]DIR[@DTYPE]`.

    An artifact stands for everything in it that can generate images. The default name is that of the folder; for
    `model`, `onnx` and `rknn` it starts with the name of the artifact.

    Returns:
        The candidates by name.

    Raises:
        UserError: A folder contains nothing to compare, or two candidates have the same name.
    """
    candidates: dict[str, ImageSource] = {}
    for spec in specs:
        for name, source in _parse_candidate(spec):
            if name in candidates:
                raise UserError(
                    f"Two candidates are named {name!r}. Give them different names, such as "
                    f"--candidate int4={source.folder}."
                )
            candidates[name] = source
    return candidates


def _parse_candidate(spec: str) -> list[tuple[str, ImageSource]]:
    match = CANDIDATE_PATTERN.fullmatch(spec)
    if match is None:
        raise UserError("--candidate is empty. Use --candidate [NAME=]DIR[@DTYPE].")
    name, folder, dtype = match["name"], Path(match["folder"]), match["dtype"]
    if Path(spec).is_dir():  # its own name has a = or @
        name, folder, dtype = None, Path(spec), None
    elif name and Path(f"{name}={folder}").is_dir():
        name, folder = None, Path(f"{name}={folder}")
    exports = [folder / name for name in GENERATORS if _can_generate(folder / name)]
    if exports and not _can_generate(folder):
        stem = name or folder.resolve().name
        return [(f"{stem}-{export.name}", _with_dtype(detect_image_source(export), dtype)) for export in exports]
    source = detect_image_source(folder)
    if dtype and source.kind != "diffusers":
        raise UserError(f"@{dtype} applies only to diffusers pipelines; {folder} is not one. Leave out @{dtype}.")
    return [(name or _get_default_name(folder), _with_dtype(source, dtype))]


def _can_generate(folder: Path) -> bool:
    return is_pipeline(folder) or is_export(folder)


def _get_default_name(folder: Path) -> str:
    folder = folder.resolve()
    return f"{Artifact.containing(folder).path.name}-{folder.name}" if folder.name in GENERATORS else folder.name


def _with_dtype(source: ImageSource, dtype: str | None) -> ImageSource:
    return ImageSource(source.kind, source.folder, dtype) if source.kind == "diffusers" else source


def read_origin(source: ImageSource) -> Manifest | None:
    """The manifest of the artifact that a candidate is in, which says what it was quantized from.

    Returns:
        None if it is in no artifact, or an export of another pipeline than the artifact's model.

    Raises:
        UserError: The manifest or the export's pipeline.json is corrupt, or of a newer version.
    """
    manifest = read_manifest(Artifact.containing(source.folder).path)
    if manifest is not None and is_export(source.folder):
        config = read_export_config(source.folder)
        if config.model_sha256 == "" and set(config.sources) != set(manifest.sources):
            return None
    return manifest
