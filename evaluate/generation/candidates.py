"""What an evaluation compares: the reference and the candidates, each a folder, a single file or a server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from ...common.errors import UserError
from ...common.file_names import require_local
from ...pipelines.component_files import SINGLE_FILE_SUFFIXES, ComponentFile
from ...pipelines.optimum_pipelines import find_optimum_format
from ...runtime.rknn.exported import is_rknn_artifact
from ...storage.layout import GENERATORS, MODEL, Artifact, is_export, is_pipeline, is_weight_export
from ...storage.manifest import Manifest, read_manifest
from ...storage.pipeline_config import read_export_config
from ...storage.recognition import reject_path
from ..images.image_file import list_images
from ..results.schema import SystemKind

REFERENCE = "reference"  # what reports call the pipeline that candidates are compared with
CANDIDATE_PATTERN = re.compile(r"(?:(?P<name>[^=/]+)=)?(?P<folder>.+?)(?:@(?P<dtype>float32|bfloat16))?", re.DOTALL)
FILE_PATTERN = re.compile(r"(?P<component>[a-z]\w+):(?P<file>.+)", re.DOTALL)
NEXT_FILE = re.compile(r",(?=[a-z]\w+:)")  # between several files of one candidate
CANDIDATE_FORMS = (
    f"a folder, COMPONENT:FILE with a {' or '.join(SINGLE_FILE_SUFFIXES)} file, or the http address of a server; a "
    "name and = may go before it, and @float32 or @bfloat16 may follow a pipeline"
)
COMPONENT_NAME = re.compile(r"(text_encoder|transformer|unet|vae|controlnet|prior|decoder)(_\d+)?")
URL_PATTERN = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class ImageSource:
    """What images come from: a pipeline of diffusers or optimum, an export, image files, or a server.

    Attributes:
        kind: What it is.
        folder: Its folder; of single files that replace components, the pipeline that the other components are of,
            which is unknown (`.`) until the reference is resolved; of a server, `.`.
        dtype: Compute dtype of a diffusers pipeline; None: that of the recipe.
        loras: LoRAs that are merged into the weights of a diffusers pipeline, as `PATH:WEIGHT`.
        files: Single files that replace components of a diffusers pipeline.
        url: Address of a server, without a final slash.
    """

    kind: SystemKind
    folder: Path
    dtype: str | None = None
    loras: tuple[str, ...] = ()
    files: tuple[ComponentFile, ...] = ()
    url: str = ""

    @property
    def place(self) -> str:
        """What messages call it: its address, its files or its folder."""
        return self.url or ",".join(str(replacement.file) for replacement in self.files) or str(self.folder)


def detect_image_source(folder: Path) -> ImageSource:
    """Detects what a folder contains.

    Raises:
        UserError: It contains no pipeline, no export and no images.
    """
    if is_pipeline(folder):
        return ImageSource("optimum" if find_optimum_format(folder) else "diffusers", folder)
    if is_export(folder):
        return ImageSource("rknn" if is_rknn_artifact(folder) else "onnx", folder)
    if folder.is_dir() and list_images(folder):
        return ImageSource("images", folder)
    if not folder.exists():
        raise reject_path(folder, f"Run 'edgepress quantize' first, or give {CANDIDATE_FORMS}")
    for export in (folder, folder.parent):
        if is_weight_export(export):
            raise _reject_weight_export(folder, export)
    raise reject_path(folder, "Give a pipeline, an export, or a folder of images", _can_generate)


def parse_candidates(specs: Sequence[str]) -> dict[str, ImageSource]:
    """Parses candidates given as `[NAME=]DIR[@DTYPE]`, `[NAME=]COMPONENT:FILE[,…][@DTYPE]` or `[NAME=]URL`.

    An artifact stands for everything in it that can generate images. The default name is that of the folder; for
    `model`, `onnx` and `rknn` it starts with the name of the artifact.

    Returns:
        The candidates by name.

    Raises:
        UserError: A folder contains nothing to compare, a file is no single file of weights, or two candidates have the
            same name or one that of the reference.
    """
    candidates: dict[str, ImageSource] = {}
    for spec in specs:
        for name, source in _parse_candidate(spec):
            if name == REFERENCE:
                raise UserError(
                    f"A candidate cannot be named {name!r}, which is what reports call the pipeline that they "
                    f"compare with. Give it another name, such as --candidate int4={source.place}."
                )
            if name in candidates:
                raise UserError(
                    f"Two candidates are named {name!r}. Give them different names, such as "
                    f"--candidate int4={source.place}."
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
    if not URL_PATTERN.match(match["folder"]):
        require_local(match["folder"])
    unlike_folder = _parse_server(match["folder"]) or _parse_files(match["folder"], dtype)
    if unlike_folder is not None and not folder.exists():
        return [(name or _name_unlike_folder(unlike_folder), unlike_folder)]
    if folder.is_file() and folder.suffix.lower() in SINGLE_FILE_SUFFIXES:
        raise UserError(
            f"{folder} is a single file of weights. Name the component that it replaces, such as --candidate "
            f"{folder.stem}={_guess_component(folder)}:{folder}."
        )
    exports = [folder / name for name in GENERATORS if _can_generate(folder / name)]
    if exports and not _can_generate(folder):
        stem = name or folder.resolve().name
        return [(f"{stem}-{export.name}", _with_dtype(detect_image_source(export), dtype)) for export in exports]
    source = detect_image_source(folder)
    if dtype and source.kind != "diffusers":
        raise UserError(f"@{dtype} applies only to diffusers pipelines; {folder} is not one. Leave out @{dtype}.")
    return [(name or _get_default_name(folder), _with_dtype(source, dtype))]


def _reject_weight_export(folder: Path, export: Path) -> UserError:
    """The error for weights that edgepress exported for other programs, which have the rest of the pipeline."""
    files = sorted(file for file in export.iterdir() if file.suffix in SINGLE_FILE_SUFFIXES)
    if files:
        example = ",".join(f"{_guess_component(file)}:{file}" for file in files)
        return UserError(f"{folder} has weights for other programs, and no pipeline. Give --candidate {example}.")
    model = export.parent / MODEL
    return UserError(f"{folder} has weights of {model} for other programs, and no pipeline. Give {model}.")


def _guess_component(file: Path) -> str:
    """The component that a single file of weights is probably for, by its name."""
    return file.stem if COMPONENT_NAME.fullmatch(file.stem) else "transformer"


def _parse_server(text: str) -> ImageSource | None:
    """The server of an address; None if it is none.

    Raises:
        UserError: The address names no host or an impossible port.
    """
    if not URL_PATTERN.match(text):
        return None
    try:
        address = urlsplit(text)
        is_complete = bool(address.hostname) and address.port != 0
    except ValueError:  # of a port or an IPv6 address
        is_complete = False
    if not is_complete:
        raise UserError(f"{text!r} is no address of a server. Give one such as http://127.0.0.1:8000.")
    return ImageSource("server", Path(), url=text.rstrip("/"))


def _parse_files(text: str, dtype: str | None) -> ImageSource | None:
    """The files of `COMPONENT:FILE[,COMPONENT:FILE…]`; None if it is something else."""
    matches = [FILE_PATTERN.fullmatch(part) for part in NEXT_FILE.split(text)]
    files = tuple(ComponentFile(match["component"], Path(match["file"])) for match in matches if match)
    if len(files) < len(matches):
        return None
    for replacement in files:
        if replacement.file.suffix.lower() not in SINGLE_FILE_SUFFIXES:
            if not replacement.file.exists():
                raise UserError(f"--candidate {text} does not exist. Give {CANDIDATE_FORMS}.")
            raise reject_path(replacement.file, f"Give a {' or '.join(SINGLE_FILE_SUFFIXES)} file of a component")
    components = [replacement.component for replacement in files]
    if len(set(components)) < len(components):
        raise UserError(f"--candidate {text} replaces a component twice. Give one file for each component.")
    return ImageSource("diffusers", Path(), dtype, files=files)


def _name_unlike_folder(source: ImageSource) -> str:
    """The default name of a server or of single files."""
    return source.files[0].file.stem if source.files else urlsplit(source.url).netloc


def _can_generate(folder: Path) -> bool:
    return is_pipeline(folder) or is_export(folder)


def _get_default_name(folder: Path) -> str:
    folder = folder.resolve()
    return f"{Artifact.containing(folder).path.name}-{folder.name}" if folder.name in GENERATORS else folder.name


def _with_dtype(source: ImageSource, dtype: str | None) -> ImageSource:
    return replace(source, dtype=dtype) if source.kind == "diffusers" else source


def read_origin(source: ImageSource) -> Manifest | None:
    """The manifest of the artifact that a candidate is in, which says what it was quantized from.

    Returns:
        None if it is in no artifact, an export of another pipeline than the artifact's model, single files or a server.

    Raises:
        UserError: The manifest or the export's pipeline.json is corrupt, or of a newer version.
    """
    if source.files or source.url:
        return None
    manifest = read_manifest(Artifact.containing(source.folder).path)
    if manifest is not None and is_export(source.folder):
        config = read_export_config(source.folder)
        if config.model_sha256 == "" and set(config.sources) != set(manifest.sources):
            return None
    return manifest
