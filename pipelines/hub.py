"""Where a pipeline comes from: the embedded demo, a folder, or a hub id."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from ..common.errors import UserError

PACKAGE_ROOT = Path(__file__).parents[1]
DEMO_PIPELINE = PACKAGE_ROOT / "demo" / "pipeline"
DEMO_CLIP = PACKAGE_ROOT / "demo" / "clip"


def resolve_pipeline(model: str) -> Path:
    """The folder of a pipeline: `demo`, a path, or a hub id that is downloaded where there is a network.

    Raises:
        UserError: no such folder, no `model_index.json` in it, or a hub id that cannot be had.
    """
    if model == "demo":
        return _require_pipeline(DEMO_PIPELINE)
    path = Path(model)
    with suppress(RuntimeError):  # nobody has that home
        path = path.expanduser()
    if path.exists() or not _looks_like_hub_id(model):
        return _require_pipeline(path)
    return _require_pipeline(_download(model))


def read_pipeline_class(folder: Path) -> str:
    """The class that `model_index.json` names."""
    try:
        return str(json.loads((folder / "model_index.json").read_text("utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'model_index.json'} names no pipeline class; is it a diffusers folder?") from error


def bundled_clip(folder: Path) -> str | None:
    """The CLIP that comes with a pipeline, in the words of `evaluate --clip`: the demo alone has one."""
    return f"local-dir:{DEMO_CLIP}" if folder.resolve() == DEMO_PIPELINE.resolve() and DEMO_CLIP.is_dir() else None


def _looks_like_hub_id(model: str) -> bool:
    return model.count("/") == 1 and not model.startswith((".", "/", "~"))


def _require_pipeline(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"There is no model folder {folder}; give a diffusers folder, a hub id, or 'demo'.")
    if not (folder / "model_index.json").exists():
        raise UserError(f"{folder} has no model_index.json; give the top folder of a diffusers pipeline.")
    return folder


def _download(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{model!r} is no folder here, and the hub does not give it ({reason}); check the name."
        ) from error
