"""Loads CLIP through transformers: a folder that it saved, or open_clip's weights under its names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....common.errors import UserError
from ...images.types import ImageArray
from . import checkpoint_conversion
from .encoders import ClipEncoders
from .spec import ClipSpec

if TYPE_CHECKING:
    from torch import Tensor

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json")
MAX_LISTED_NAMES = 3  # names that a sentence shows


def load(spec: ClipSpec) -> ClipEncoders:
    """A folder of transformers.

    Raises:
        UserError: it holds no CLIPModel, lacks some of its weights, or cannot be read.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import CLIPImageProcessorPil, CLIPModel

    settings = _read_json(spec.path / "config.json")
    if settings.get("model_type") != "clip":
        raise UserError(
            f"{spec.path} holds a model of type {settings.get('model_type')!r}; --clip transformers: wants clip."
        )
    try:
        model, found = CLIPModel.from_pretrained(
            spec.path, output_loading_info=True, local_files_only=True, use_safetensors=True
        )
        processor = CLIPImageProcessorPil.from_pretrained(spec.path, local_files_only=True)
    except (OSError, TypeError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise UserError(f"CLIP in {spec.path} cannot be loaded ({_get_first_line(error)}).") from error
    _require_complete(found["missing_keys"], spec)  # transformers would draw them at random
    return _make_encoders(model, processor, spec.path)


def load_open_clip_folder(spec: ClipSpec) -> ClipEncoders:
    """open_clip's folder without open_clip.

    Raises:
        UserError: an architecture that only open_clip knows, or weights that do not fit the configuration.
    """
    from transformers import CLIPImageProcessorPil

    settings = _read_json(spec.path / "open_clip_config.json")
    if "model_cfg" not in settings:
        raise UserError(f"{spec.path / 'open_clip_config.json'} has no model_cfg; give a folder that open_clip saved.")
    model = _build_model(settings["model_cfg"], spec)
    weights = checkpoint_conversion.convert_state_dict(_load_tensors(spec.weights[0]))
    expected = model.state_dict()
    _require_complete(sorted(set(expected) - set(weights)), spec)
    mismatched = [
        name for name, tensor in weights.items() if name not in expected or expected[name].shape != tensor.shape
    ]
    if mismatched:
        raise UserError(
            f"{spec.weights[0]} does not fit the architecture that {spec.path} names: {_format_names(mismatched)}."
        )
    model.load_state_dict(weights)
    side = model.config.vision_config.image_size
    processor = CLIPImageProcessorPil(
        **checkpoint_conversion.convert_processor_config(settings.get("preprocess_cfg", {}), side)
    )
    return _make_encoders(model, processor, spec.path)


def _build_model(settings: Any, spec: ClipSpec) -> Any:
    """The architecture of open_clip's `model_cfg`; its weights are still random."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CLIPConfig, CLIPModel

    try:
        return CLIPModel(CLIPConfig(**checkpoint_conversion.convert_model_config(settings)))
    except (StrictDataclassError, TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{spec.path} describes no CLIP that can be built ({reason}); fetch it anew.") from error


def _make_encoders(model: Any, processor: Any, folder: Path) -> ClipEncoders:
    import torch

    model = model.float().eval()

    def image(picture: ImageArray) -> Tensor:
        pixels = processor(picture, return_tensors="pt").pixel_values
        with torch.inference_mode():
            embedding: Tensor = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)[0]
        return embedding

    def text(tokens: Tensor) -> Tensor:
        with torch.inference_mode():
            embedding: Tensor = model.text_projection(model.text_model(input_ids=tokens).pooler_output)[0]
        return embedding

    return ClipEncoders(
        library=f"transformers {version('transformers')}",
        encode_image=image,
        encode_text=text,
        tokenize=_load_tokenizer(folder),
        context_length=model.config.text_config.max_position_embeddings,
    )


def _load_tokenizer(folder: Path) -> Callable[[str, int], Tensor] | None:
    """None where the folder has none."""
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        return None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(f"The tokenizer of CLIP in {folder} cannot be loaded ({_get_first_line(error)}).") from error

    def tokenize(text: str, length: int) -> Tensor:
        made: Tensor = tokenizer(
            [text], padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).input_ids
        return made

    return tokenize


def _read_json(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read; give a folder that holds CLIP's configuration.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is no JSON object; give a folder that holds CLIP's configuration.")
    return content


def _load_tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} is no readable safetensors file ({error}); fetch it anew.") from error


def _require_complete(missing: list[str] | set[str], spec: ClipSpec) -> None:
    if missing:
        raise UserError(
            f"CLIP in {spec.path} lacks weights ({_format_names(sorted(missing))}); random ones are never used."
        )


def _format_names(names: list[str]) -> str:
    more = len(names) - MAX_LISTED_NAMES
    return ", ".join(names[:MAX_LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")


def _get_first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
