"""Loads CLIP through open_clip, where it is installed."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ..registry import Picture
from .spec import Spec
from .towers import Towers

if TYPE_CHECKING:
    from torch import Tensor

QUICK, PLAIN = "-quickgelu", "-gelu"


def installed() -> bool:
    return find_spec("open_clip") is not None


def load(spec: Spec) -> Towers:
    """A folder, or a name and a checkpoint.

    Raises:
        UserError: open_clip is missing or broken, the name is unknown or leaves the activation open, or weights do not
            fit.
    """
    from safetensors import SafetensorError

    open_clip = _imported(spec)
    name = f"local-dir:{spec.path}" if spec.form == "local-dir" else architecture(spec.name, open_clip.list_models())
    checkpoint = None if spec.form == "local-dir" else str(spec.weights[0])
    try:
        # This function alone refuses a model without weights; its neighbours warn and draw them at random.
        model, transform = open_clip.create_model_from_pretrained(name, pretrained=checkpoint)
        _positions_fit(model, spec)
        tokenizer = open_clip.get_tokenizer(name)
    except (RuntimeError, ValueError, OSError, TypeError, KeyError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"open_clip cannot load {spec.weights[0]} as {name} ({reason}).") from error
    return _towers(model.eval(), transform, tokenizer)


def architecture(name: str, known: list[str]) -> str:
    """open_clip's name for an architecture, once it says which activation its weights were trained with.

    A checkpoint does not say so, and with the wrong one CLIP still works, only worse (open_clip issue 771).

    Raises:
        UserError: open_clip does not know the name, or knows it with both activations.
    """
    plain = name.removesuffix(PLAIN)
    if name in known and name + QUICK in known:
        raise UserError(
            f"{name} exists with GELU and with QuickGELU, and a checkpoint does not say which it was trained with; "
            f"write {name}{QUICK} (OpenAI's weights) or {name}{PLAIN} (most others)."
        )
    if plain not in known:
        raise UserError(f"open_clip knows no architecture {plain!r}; `open_clip.list_models()` names them.")
    return plain


def _imported(spec: Spec) -> Any:
    if not installed():
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


def _positions_fit(model: Any, spec: Spec) -> None:
    """Refuses what open_clip stretches without a word: position embeddings of another size of picture or text."""
    from safetensors import safe_open

    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    with safe_open(spec.weights[0], framework="pt") as weights:
        names = [name for name in weights.keys() if name.endswith("positional_embedding") and name in wanted]  # noqa: SIM118
        shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in names}
    for name, shape in shapes.items():
        if shape != wanted[name]:
            raise ValueError(f"{name} is {shape} in the checkpoint and {wanted[name]} in the architecture")


def _towers(model: Any, transform: Any, tokenizer: Any) -> Towers:
    import torch

    def image(picture: Picture) -> Tensor:
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

    return Towers(
        library=f"open_clip {version('open-clip-torch')}",
        image=image,
        text=text,
        tokenize=tokenize,
        context=tokenizer.context_length,
    )
