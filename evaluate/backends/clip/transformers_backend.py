"""Loads CLIP models with transformers: folders that it saved, or open_clip's weights under its names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....common.errors import UserError, summarize_error
from ....common.requirements import reject_failed_import
from ....common.validation import format_value
from ....storage.strict_json import parse_strict_json
from ...images.types import ImageArray
from . import checkpoint_conversion
from .encoders import ClipEncoders
from .preprocessing import ClipPreprocessing, read_open_clip_config, read_processor
from .spec import ClipSpec

if TYPE_CHECKING:
    from torch import Tensor

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json")
MAX_LISTED_NAMES = 3  # in an error message


def load(spec: ClipSpec) -> ClipEncoders:
    """Loads a folder that transformers saved.

    Raises:
        UserError: The folder contains no CLIPModel, lacks some of its weights, or cannot be read.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import CLIPImageProcessorPil, CLIPModel

    config = _read_json(spec.path / "config.json")
    if config.get("model_type") != "clip":
        raise UserError(
            f"{spec.path} contains a model of type {format_value(config.get('model_type'))}, but --clip transformers: "
            "needs one of type 'clip'. Give another folder."
        )
    try:
        model, loading_info = CLIPModel.from_pretrained(
            spec.path, output_loading_info=True, local_files_only=True, use_safetensors=True
        )
        processor = CLIPImageProcessorPil.from_pretrained(spec.path, local_files_only=True)
    except (OSError, TypeError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        reject_failed_import(error)
        raise UserError(
            f"The CLIP model in {spec.path} cannot be loaded ({_get_first_line(error)}). Download it again."
        ) from error
    _require_complete(loading_info["missing_keys"], spec)  # transformers initializes these randomly
    return _make_encoders(model, read_processor(processor), spec.path)


def load_open_clip_folder(spec: ClipSpec) -> ClipEncoders:
    """Loads a folder in open_clip's format without open_clip.

    Raises:
        UserError: Only open_clip supports the architecture, or the weights do not fit the configuration.
    """
    config_file = spec.path / "open_clip_config.json"
    config = _read_json(config_file)
    if "model_cfg" not in config:
        raise UserError(f"{config_file} has no model_cfg. Give a folder that open_clip saved.")
    model = _build_model(config["model_cfg"], spec)
    weights = checkpoint_conversion.convert_state_dict(_load_tensors(spec.weights[0]))
    expected = model.state_dict()
    _require_complete(sorted(set(expected) - set(weights)), spec)
    mismatched = [
        name for name, tensor in weights.items() if name not in expected or expected[name].shape != tensor.shape
    ]
    if mismatched:
        raise UserError(
            f"{spec.weights[0]} does not fit the architecture in {config_file}: {_format_names(mismatched)}. "
            "Give another --clip."
        )
    model.load_state_dict(weights)
    image_size = model.config.vision_config.image_size
    preprocessing = read_open_clip_config(config.get("preprocess_cfg", {}), image_size)
    return _make_encoders(model, preprocessing, spec.path)


def _build_model(model_cfg: Any, spec: ClipSpec) -> Any:
    """Builds the architecture of open_clip's `model_cfg`, with random weights."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CLIPConfig, CLIPModel

    try:
        return CLIPModel(CLIPConfig(**checkpoint_conversion.convert_model_config(model_cfg)))
    except (StrictDataclassError, TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        reject_failed_import(error)
        reason = " ".join(str(error).split())
        raise UserError(
            f"The configuration in {spec.path} describes no valid CLIP model ({reason}). Download it again."
        ) from error


def _make_encoders(model: Any, preprocessing: ClipPreprocessing, folder: Path) -> ClipEncoders:
    import torch

    model = model.float().eval()

    def encode_image(image: ImageArray) -> Tensor:
        pixels = preprocessing.apply(image)
        with torch.inference_mode():
            embedding: Tensor = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)[0]
        return embedding

    def encode_text(tokens: Tensor) -> Tensor:
        with torch.inference_mode():
            embedding: Tensor = model.text_projection(model.text_model(input_ids=tokens).pooler_output)[0]
        return embedding

    return ClipEncoders(
        library=f"transformers {version('transformers')}",
        preprocessing=preprocessing,
        encode_image=encode_image,
        encode_text=encode_text,
        tokenize=_load_tokenizer(folder),
        context_length=model.config.text_config.max_position_embeddings,
    )


def _load_tokenizer(folder: Path) -> Callable[[str, int], Tensor] | None:
    """Returns a function that tokenizes a text to a given length, or None if the folder has no tokenizer."""
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        return None
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"The CLIP tokenizer in {folder} cannot be loaded ({_get_first_line(error)}). Download it again."
        ) from error

    def tokenize(text: str, length: int) -> Tensor:
        encoding = tokenizer([text], padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        tokens: Tensor = encoding.input_ids
        return tokens

    return tokenize


def _read_json(file: Path) -> Mapping[str, Any]:
    try:
        return parse_strict_json(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{file} cannot be read ({reason}). Give a folder with the configuration of a CLIP model."
        ) from error


def _load_tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(file))
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{file} is not a readable safetensors file ({summarize_error(error)}). Download it again."
        ) from error


def _require_complete(missing: list[str] | set[str], spec: ClipSpec) -> None:
    if missing:
        raise UserError(
            f"The CLIP model in {spec.path} lacks weights ({_format_names(sorted(missing))}). Give another --clip."
        )


def _format_names(names: list[str]) -> str:
    num_hidden = len(names) - MAX_LISTED_NAMES
    return ", ".join(names[:MAX_LISTED_NAMES]) + (f" and {num_hidden} more" if num_hidden > 0 else "")


def _get_first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
