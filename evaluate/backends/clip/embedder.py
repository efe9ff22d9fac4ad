"""Computes the CLIP embeddings of images and prompts, each once per run."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...images.image_file import hash_image
from ...images.types import ImageArray
from . import open_clip_backend, preprocessing, transformers_backend
from .encoders import ClipEncoders
from .spec import ClipSpec, parse_clip_spec

if TYPE_CHECKING:
    from torch import Tensor

Embedding = npt.NDArray[np.float64]
"""A vector of shape ``(width,)`` and length 1."""

LOOKAHEAD_FACTOR = 2  # a text is truncated if its tokens differ with this many times the context length


class ClipEmbedder:
    """Embeds images and texts with a CLIP model, and caches the embeddings in memory.

    The weights are loaded once to check them, released, and loaded again for the first embedding.

    Args:
        spec: The CLIP model.

    Attributes:
        label: Short name for reports: model name and the first digits of the weights' SHA-256.
        version: Everything that embeddings depend on, for cache keys.
        can_embed_text: Whether the model has a tokenizer.

    Raises:
        UserError: The weights are incomplete or belong to another architecture.
    """

    def __init__(self, spec: ClipSpec) -> None:
        self._spec = spec
        encoders = load_encoders(spec)
        digest = spec.digest
        self.label = f"{spec.name} {digest[:8]}"
        self.version = (
            f"{spec.name}, sha256 {digest}, settings {spec.config_digest}, preprocessing {preprocessing.VERSION}, "
            f"{encoders.library}"
        )
        self.can_embed_text = encoders.tokenize is not None
        self._encoders: ClipEncoders | None = None
        self._lock = Lock()
        self._image_embeddings: dict[str, Embedding] = {}
        self._text_embeddings: dict[str, Embedding | None] = {}

    def embed_image(self, image: ImageArray) -> Embedding:
        """Returns the embedding of an image."""
        key = hash_image(image)
        if key not in self._image_embeddings:
            self._image_embeddings[key] = _normalize(self._get_encoders().encode_image(image))
        return self._image_embeddings[key]

    def embed_text(self, text: str) -> Embedding | None:
        """Returns the embedding of a text, or None if the text is longer than the context of the model."""
        if text not in self._text_embeddings:
            self._text_embeddings[text] = self._encode_text(text)
        return self._text_embeddings[text]

    def _encode_text(self, text: str) -> Embedding | None:
        encoders = self._get_encoders()
        if encoders.tokenize is None:
            raise ValueError("this CLIP model has no tokenizer")
        tokens = encoders.tokenize(text, encoders.context_length)
        longer_tokens = encoders.tokenize(text, LOOKAHEAD_FACTOR * encoders.context_length)
        if not tokens.equal(longer_tokens[:, : encoders.context_length]):
            return None
        return _normalize(encoders.encode_text(tokens))

    def _get_encoders(self) -> ClipEncoders:
        with self._lock:
            if self._encoders is None:
                self._encoders = load_encoders(self._spec)
            return self._encoders


def load_encoders(spec: ClipSpec) -> ClipEncoders:
    """Loads a CLIP model with open_clip if it is installed or required, otherwise with transformers."""
    if spec.format == "transformers":
        return transformers_backend.load(spec)
    if spec.format == "name" or open_clip_backend.is_installed():
        return open_clip_backend.load(spec)
    return transformers_backend.load_open_clip_folder(spec)


@lru_cache(maxsize=1)
def load_clip(text: str) -> ClipEmbedder:
    """Returns the embedder for a value of `--clip`. All metrics share it, and with it the embeddings.

    Raises:
        UserError: There is no such model, or its weights are incomplete or belong to another architecture.
    """
    return ClipEmbedder(parse_clip_spec(text))


def cosine_similarity(a: Embedding, b: Embedding) -> float:
    """Returns the cosine similarity of two embeddings, in -1..1."""
    return float(np.clip(a @ b, -1, 1))


def _normalize(embedding: Tensor) -> Embedding:
    vector = embedding.double().numpy()
    normalized: Embedding = vector / np.linalg.norm(vector)
    return normalized
