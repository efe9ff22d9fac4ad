"""Loads CLIP models with open_clip, if it is installed."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ....common.errors import UserError, summarize_error
from ...images.types import ImageArray
from .encoders import ClipEncoders
from .preprocessing import ClipPreprocessing, read_open_clip_config
from .spec import ClipSpec

if TYPE_CHECKING:
    from torch import Tensor

QUICKGELU_SUFFIX, GELU_SUFFIX = "-quickgelu", "-gelu"


def is_installed() -> bool:
    """Returns whether open_clip is installed. It may still fail to import."""
    return find_spec("open_clip") is not None


def load(spec: ClipSpec) -> ClipEncoders:
    """Loads a folder in open_clip's format, or an architecture and its checkpoint.

    Raises:
        UserError: open_clip is missing or broken, the architecture is unknown or ambiguous, or the weights do not fit.
    """
    from safetensors import SafetensorError

    open_clip = _import_open_clip(spec)
    is_folder = spec.format == "local-dir"
    name = f"local-dir:{spec.path}" if is_folder else resolve_architecture(spec.name, open_clip.list_models())
    checkpoint = None if is_folder else str(spec.weights[0])
    try:
        # Of open_clip's functions only this one refuses a model without weights. The others initialize it randomly.
        model = open_clip.create_model_from_pretrained(name, pretrained=checkpoint, return_transform=False)
        _require_position_embeddings(model, spec)
        tokenizer = open_clip.get_tokenizer(name)
    except (RuntimeError, ValueError, OSError, TypeError, KeyError, SafetensorError) as error:
        reason = summarize_error(error)
        raise UserError(
            f"open_clip cannot load {spec.weights[0]} as {name} ({reason}). Give another --clip."
        ) from error
    config = model.visual.preprocess_cfg
    return _make_encoders(model.eval(), read_open_clip_config(config, config["size"]), tokenizer)


def resolve_architecture(name: str, known: list[str]) -> str:
    """Returns open_clip's name of an architecture.

    Many architectures exist with GELU and with QuickGELU. A checkpoint does not say which one it was trained with, and
    with the wrong one CLIP works, but worse (open_clip issue 771). The name must therefore say it.

    Args:
        name: Name given by the user, which may end in `-quickgelu` or `-gelu`.
        known: Names that open_clip knows.

    Raises:
        UserError: The name is unknown, or does not say which activation to use.
    """
    base_name = name.removesuffix(GELU_SUFFIX)
    if name in known and name + QUICKGELU_SUFFIX in known:
        raise UserError(
            f"The architecture {name} exists with GELU and with QuickGELU. Use {name}{QUICKGELU_SUFFIX} (OpenAI's "
            f"weights) or {name}{GELU_SUFFIX} (most others)."
        )
    if base_name not in known:
        raise UserError(
            f"open_clip does not know the architecture {base_name!r}. Choose one that open_clip.list_models() lists."
        )
    return base_name


def _import_open_clip(spec: ClipSpec) -> Any:
    if not is_installed():
        raise UserError(
            f"--clip {spec.name}:… requires open_clip. Install open-clip-torch, or give a folder as local-dir:, which "
            "transformers can load."
        )
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"open_clip is installed but cannot be imported ({reason}). Install the torchvision version that matches "
            "torch, or uninstall open-clip-torch and torchvision so that transformers loads local-dir: folders."
        ) from error
    return open_clip


def _require_position_embeddings(model: Any, spec: ClipSpec) -> None:
    """Refuses position embeddings of another image size or text length, which open_clip interpolates silently."""
    from safetensors import safe_open

    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    with safe_open(spec.weights[0], framework="pt") as weights:
        names = [name for name in weights.keys() if name.endswith("positional_embedding") and name in expected]  # noqa: SIM118
        shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in names}
    for name, shape in shapes.items():
        if shape != expected[name]:
            raise ValueError(f"{name} is {shape} in the checkpoint and {expected[name]} in the architecture")


def _make_encoders(model: Any, preprocessing: ClipPreprocessing, tokenizer: Any) -> ClipEncoders:
    import torch

    def encode_image(image: ImageArray) -> Tensor:
        with torch.inference_mode():
            embedding: Tensor = model.encode_image(preprocessing.apply(image))[0]
        return embedding

    def encode_text(tokens: Tensor) -> Tensor:
        with torch.inference_mode():
            embedding: Tensor = model.encode_text(tokens)[0]
        return embedding

    def tokenize(text: str, length: int) -> Tensor:
        tokens: Tensor = tokenizer([text], context_length=length)
        return tokens

    return ClipEncoders(
        library=f"open_clip {version('open-clip-torch')}",
        preprocessing=preprocessing,
        encode_image=encode_image,
        encode_text=encode_text,
        tokenize=tokenize,
        context_length=tokenizer.context_length,
    )
