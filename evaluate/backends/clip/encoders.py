"""The common interface of CLIP models, whichever library loads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...images.types import ImageArray
from .preprocessing import ClipPreprocessing

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ClipEncoders:
    """A CLIP model in float32.

    Attributes:
        library: The library that runs it, with its version.
        preprocessing: How `encode_image` prepares an image.
        encode_image: Encodes an image as an embedding of shape ``(width,)``.
        encode_text: Encodes tokens of shape ``(1, context_length)`` as an embedding of shape ``(width,)``.
        tokenize: Tokenizes a text to the given length, padded or truncated: ``(1, length)``. None without a tokenizer.
        context_length: Number of tokens that the text encoder takes.
    """

    library: str
    preprocessing: ClipPreprocessing
    encode_image: Callable[[ImageArray], Tensor]
    encode_text: Callable[[Tensor], Tensor]
    tokenize: Callable[[str, int], Tensor] | None
    context_length: int
