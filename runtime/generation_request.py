"""An image to generate: what is asked for, and whether it can be at all."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from numbers import Integral, Real
from typing import Any

from PIL.Image import Image

from ..common.errors import UserError
from ..common.validation import format_value

DEFAULT_STRENGTH = 0.6  # that of most pipelines of diffusers
SEED_LIMIT = 2**64  # the seeds of torch are below it


@dataclass(frozen=True)
class GenerationRequest:
    """An image to generate.

    Attributes:
        prompt: What the image shows.
        seed: Seed of the noise, 0 to 2^64 - 1. The same seed gives the same noise as in torch.
        steps: Number of denoising steps.
        size: Height and width in pixels; None for the default of the artifact.
        tile_size: Side in pixels of the tiles that the image is decoded in, which limits the memory; None to decode it
            as a whole.
        require_finite: Whether NaN or infinite outputs of a graph are errors, rather than pixels.
        guidance: Scale of classifier-free guidance; 0 for none. With guidance a step takes twice the time.
        negative_prompt: What guidance leads away from.
        image: An image to start from instead of from noise, in RGB; it is scaled to `size`. If there is no `size`, it
            keeps its own, lowered to what the pipeline supports.
        strength: How much of the image is replaced, above 0 to 1, at which nothing of it is left. So much of the steps
            is done.
        step_cache: Largest relative change of the velocity that a step may miss by taking an earlier one
            (`runtime.step_cache`); 0 computes all steps. At least 4 steps must be done for one to be skipped.
    """

    prompt: str
    seed: int = 0
    steps: int = 8
    size: tuple[int, int] | None = None
    tile_size: int | None = None
    require_finite: bool = True
    guidance: float = 0.0
    negative_prompt: str = ""
    image: Image | None = None
    strength: float = DEFAULT_STRENGTH
    step_cache: float = 0.0


def require_valid(request: GenerationRequest) -> None:
    """Checks the types of a request, and what no artifact supports.

    Raises:
        UserError: A value is of a wrong type or out of range.
    """
    for name, text in (("prompt", request.prompt), ("negative prompt", request.negative_prompt)):
        if not isinstance(text, str):
            raise UserError(f"Invalid {name} {format_value(text)}: it must be text.")
    if not (_is_whole(request.seed) and 0 <= request.seed < SEED_LIMIT):
        raise UserError(
            f"Invalid seed {format_value(request.seed)}: it must be a whole number from 0 to {SEED_LIMIT - 1}."
        )
    if not _is_whole(request.steps):
        raise UserError(f"Invalid number of steps {format_value(request.steps)}: it must be a whole number.")
    if request.size is not None and not _is_size(request.size):
        raise UserError(
            f"Invalid image size {format_value(request.size)}: it must be a height and a width, such as (512, 512)."
        )
    if request.tile_size is not None and not _is_whole(request.tile_size):
        raise UserError(f"Invalid tile size {format_value(request.tile_size)}: it must be a whole number of pixels.")
    guidance = request.guidance
    if not (_is_number(guidance) and guidance >= 0):
        raise UserError(f"Invalid guidance {format_value(guidance)}: it must be a number from 0, such as 4.")
    cache = request.step_cache
    if not (_is_number(cache) and 0 <= cache <= 1):
        raise UserError(f"Invalid step cache {format_value(cache)}: it must be a number from 0 to 1, such as 0.1.")
    strength = request.strength
    if not (_is_number(strength) and 0 < strength <= 1):
        raise UserError(f"Invalid strength {format_value(strength)}: it must be a number above 0, up to 1.")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_whole, value))
