"""Loads CLIP through open_clip, where it is installed."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ....common.errors import UserError
from ...images.types import ImageArray
from .encoders import ClipEncoders
from .spec import ClipSpec

if TYPE_CHECKING:
    from torch import Tensor

QUICKGELU_SUFFIX, GELU_SUFFIX = "-quickgelu", "-gelu"


def is_installed() -> bool:
    return find_spec("open_clip") is not None


def load(spec: ClipSpec) -> ClipEncoders:
    """A folder, or a name and a checkpoint.

    Raises:
        UserError: open_clip is missing or broken, the name is unknown or leaves the activation open, or weights do not
            fit.
    """
    from safetensors import SafetensorError

    open_clip = _import_open_clip(spec)
    name = (
        f"local-dir:{spec.path}"
        if spec.format == "local-dir"
        else resolve_architecture(spec.name, open_clip.list_models())
    )
    checkpoint = None if spec.format == "local-dir" else str(spec.weights[0])
    try:
        # This function alone refuses a model without weights; its neighbours warn and draw them at random.
        model, transform = open_clip.create_model_from_pretrained(name, pretrained=checkpoint)
        _require_position_embeddings(model, spec)
        tokenizer = open_clip.get_tokenizer(name)
    except (RuntimeError, ValueError, OSError, TypeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"open_clip cannot load {spec.weights[0]} as {name} ({reason}).") from error
    return _make_encoders(model.eval(), transform, tokenizer)


def resolve_architecture(name: str, known: list[str]) -> str:
    """open_clip's name for an architecture, once it says which activation its weights were trained with.

    A checkpoint does not say so, and with the wrong one CLIP still works, only worse (open_clip issue 771).

    Raises:
        UserError: open_clip does not know the name, or knows it with both activations.
    """
    plain = name.removesuffix(GELU_SUFFIX)
    if name in known and name + QUICKGELU_SUFFIX in known:
        raise UserError(
            f"{name} exists with GELU and with QuickGELU, and a checkpoint does not say which it was trained with; "
            f"write {name}{QUICKGELU_SUFFIX} (OpenAI's weights) or {name}{GELU_SUFFIX} (most others)."
        )
    if plain not in known:
        raise UserError(f"open_clip knows no architecture {plain!r}; `open_clip.list_models()` names them.")
    return plain


def _import_open_clip(spec: ClipSpec) -> Any:
    if not is_installed():
        raise UserError(
            f"--clip {spec.name}:… needs open_clip: install open-clip-torch, or give a folder as local-dir:, which "
            "transformers can read."
        )
    try:
        import open_clip
    except (ImportError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"open_clip is installed but cannot be imported ({reason}); install the torchvision that belongs to this "
            "torch, or uninstall open-clip-torch and torchvision, and transformers reads local-dir: folders."
        ) from error
    return open_clip


def _require_position_embeddings(model: Any, spec: ClipSpec) -> None:
    """Refuses what open_clip stretches without a word: position embeddings of another size of picture or text."""
    from safetensors import safe_open

    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    with safe_open(spec.weights[0], framework="pt") as weights:
        names = [name for name in weights.keys() if name.endswith("positional_embedding") and name in expected]  # noqa: SIM118
        shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in names}
    for name, shape in shapes.items():
        if shape != expected[name]:
            raise ValueError(f"{name} is {shape} in the checkpoint and {expected[name]} in the architecture")


def _make_encoders(model: Any, transform: Any, tokenizer: Any) -> ClipEncoders:
    import torch

    def image(picture: ImageArray) -> Tensor:
        from PIL import Image

        with torch.inference_mode():
            embedding: Tensor = model.encode_image(transform(Image.fromarray(picture))[None])[0]
        return embedding

    def text(tokens: Tensor) -> Tensor:
        with torch.inference_mode():
            embedding: Tensor = model.encode_text(tokens)[0]
        return embedding

    def tokenize(words: str, length: int) -> Tensor:
        tokens: Tensor = tokenizer([words], context_length=length)
        return tokens

    return ClipEncoders(
        library=f"open_clip {version('open-clip-torch')}",
        encode_image=image,
        encode_text=text,
        tokenize=tokenize,
        context_length=tokenizer.context_length,
    )
