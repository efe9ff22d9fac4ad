"""What both loaders give: one function for pictures, one for texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...images.types import ImageArray

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ClipEncoders:
    """A loaded CLIP in float32.

    image: a picture to its embedding (width,). text: tokens (1, context) to their embedding (width,). tokenize: a text
    to exactly so many tokens (1, length), padded or cut. library: what computes, with its version.
    """

    library: str
    encode_image: Callable[[ImageArray], Tensor]
    encode_text: Callable[[Tensor], Tensor]
    tokenize: Callable[[str, int], Tensor] | None
    context_length: int
