"""Finds pipelines: the demo that is shipped, a local folder, or a model of the Hugging Face Hub."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..common.errors import UserError, summarize_error
from ..common.file_names import require_local
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX, is_pipeline
from ..storage.recognition import describe_without_suffix, reject_path

PACKAGE_ROOT = Path(__file__).parents[1]
DEMO_PIPELINE = PACKAGE_ROOT / "demo" / "pipeline"
DEMO_CLIP = PACKAGE_ROOT / "demo" / "clip"
DEMO_LORA = PACKAGE_ROOT / "demo" / "lora"


def resolve_pipeline(model: str) -> Path:
    """Finds the folder of a pipeline; a model of the Hugging Face Hub is downloaded.

    Args:
        model: `demo`, the path of a diffusers folder, a Hub id such as `owner/name`, or a single file of weights,
            which gets a folder in the user's cache.

    Raises:
        UserError: There is no such folder, it is an address or not a diffusers pipeline, the download failed, or a file
            is of no pipeline that diffusers knows.
    """
    if model == "demo":
        return _require_pipeline(DEMO_PIPELINE, str(DEMO_PIPELINE))
    require_local(model)
    path = Path(model)
    with suppress(RuntimeError):  # no user with that home directory
        path = path.expanduser()
    if path.suffix.lower() == ".safetensors" and path.is_file():
        from .single_file_pipeline import open_single_file

        return open_single_file(path, resolve_pipeline)
    if path.exists() or not _looks_like_hub_id(model):
        return _require_pipeline(path, model)
    return _require_pipeline(_download(model), model)


def resolve_source(model: str | Path) -> Path:
    """Finds what can be exported: a folder as it is, since an artifact is a source as well; anything else is a name.

    Raises:
        UserError: As `resolve_pipeline`.
    """
    return Path(model) if str(model) != "demo" and Path(model).is_dir() else resolve_pipeline(str(model))


def read_pipeline_class(folder: Path) -> str:
    """Reads the class of a pipeline from its model_index.json.

    Raises:
        UserError: The file is missing, corrupt, or does not name a class.
    """
    name = read_json_object(folder / MODEL_INDEX).get("_class_name")
    if not isinstance(name, str):
        raise UserError(f"{folder / MODEL_INDEX} does not name a pipeline class. Give a diffusers folder.")
    return name


def read_pipeline_arguments(folder: Path) -> dict[str, dict[str, Any]]:
    """Reads the settings of a pipeline's class that model_index.json has besides components.

    Returns:
        The settings under the name `pipeline`, as if it were a component; nothing if there are none.
    """
    entries = read_json_object(folder / MODEL_INDEX).items()
    settings = {
        key: value for key, value in entries if not key.startswith("_") and isinstance(value, bool | int | float | str)
    }
    return {"pipeline": settings} if settings else {}


def bundled_clip(folder: Path) -> str | None:
    """The CLIP model that is shipped with a pipeline, as `evaluate --clip` accepts it. Only the demo has one."""
    return f"local-dir:{DEMO_CLIP}" if folder.resolve() == DEMO_PIPELINE.resolve() and DEMO_CLIP.is_dir() else None


def _looks_like_hub_id(model: str) -> bool:
    owner, slash, name = model.partition("/")
    return bool(slash) and "/" not in name and not owner.startswith((".", "~")) and bool(owner) and not _exists(owner)


def _exists(name: str) -> bool:
    """Whether there is a file or folder of that name, so that what follows is a path."""
    return os.path.lexists(name)


def _require_pipeline(folder: Path, model: str) -> Path:
    """The folder, if it is a pipeline; messages name it as it was given."""
    if not folder.exists():
        raise UserError(
            f"There is no model folder {model}. Give a diffusers folder, a Hugging Face Hub id, or 'demo'"
            f"{describe_without_suffix(folder)}."
        )
    if not is_pipeline(folder):
        raise reject_path(folder, "Give the top folder of a diffusers pipeline, a Hub id, or 'demo'", is_pipeline)
    return folder


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is that of httpx or httpx2
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    patterns = ["*.json", "*/*.safetensors", "*.txt", "*.jinja", "*.model"]  # no whole model in a file at the top
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except (HTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        is_unreachable = isinstance(error, LocalEntryNotFoundError)
        reason = "it cannot be reached, and its cache has no such model" if is_unreachable else summarize_error(error)
        raise UserError(
            f"{model!r} is not a local folder, and downloading it from the Hugging Face Hub failed ({reason}). Check "
            "the name and the network."
        ) from error
