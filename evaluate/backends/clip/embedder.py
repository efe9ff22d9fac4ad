"""Embeddings of pictures and prompts by a CLIP on disk, each made once in a run."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...images.image_file import hash_image
from ...images.types import ImageArray
from . import open_clip_backend, transformers_backend
from .encoders import ClipEncoders
from .spec import ClipSpec, parse_clip_spec

if TYPE_CHECKING:
    from torch import Tensor

Embedding = npt.NDArray[np.float64]  # (width,), of length 1
LOOKAHEAD_FACTOR = 2  # a text is cut if it reads otherwise with so many times the context


class ClipEmbedder:
    """A CLIP whose weights were loaded once, to know that they can be, and are loaded again when first needed."""

    def __init__(self, spec: ClipSpec) -> None:
        self._spec = spec
        towers = load_encoders(spec)
        digest = spec.digest
        self.label = f"{spec.name} {digest[:8]}"
        self.version = f"{spec.name}, sha256 {digest}, settings {spec.config_digest}, {towers.library}"
        self.can_embed_text = towers.tokenize is not None
        self._encoders: ClipEncoders | None = None
        self._lock = Lock()
        self._image_embeddings: dict[str, Embedding] = {}
        self._text_embeddings: dict[str, Embedding | None] = {}

    def embed_image(self, picture: ImageArray) -> Embedding:
        key = hash_image(picture)
        if key not in self._image_embeddings:
            self._image_embeddings[key] = _normalize(self._get_encoders().encode_image(picture))
        return self._image_embeddings[key]

    def embed_text(self, text: str) -> Embedding | None:
        """None for a text that is longer than this CLIP reads: it would be cut without a word."""
        if text not in self._text_embeddings:
            self._text_embeddings[text] = self._encode_text(text)
        return self._text_embeddings[text]

    def _encode_text(self, text: str) -> Embedding | None:
        towers = self._get_encoders()
        if towers.tokenize is None:
            raise ValueError("this CLIP has no tokenizer")
        tokens = towers.tokenize(text, towers.context_length)
        longer = towers.tokenize(text, LOOKAHEAD_FACTOR * towers.context_length)
        if not tokens.equal(longer[:, : towers.context_length]):
            return None
        return _normalize(towers.encode_text(tokens))

    def _get_encoders(self) -> ClipEncoders:
        with self._lock:
            if self._encoders is None:
                self._encoders = load_encoders(self._spec)
            return self._encoders


def load_encoders(spec: ClipSpec) -> ClipEncoders:
    """Through open_clip where it is installed or nothing else will do, else through transformers."""
    if spec.format == "transformers":
        return transformers_backend.load(spec)
    if spec.format == "name" or open_clip_backend.is_installed():
        return open_clip_backend.load(spec)
    return transformers_backend.load_open_clip_folder(spec)


@lru_cache(maxsize=1)
def load_clip(text: str) -> ClipEmbedder:
    """The CLIP that `--clip` names; metrics share it and its embeddings.

    Raises:
        UserError: there is no such CLIP, or its weights are incomplete or of another architecture.
    """
    return ClipEmbedder(parse_clip_spec(text))


def cosine_similarity(one: Embedding, other: Embedding) -> float:
    """-1..1, and 1 for an embedding with itself."""
    return float(np.clip(one @ other, -1, 1))


def _normalize(embedding: Tensor) -> Embedding:
    vector = embedding.double().numpy()
    unit: Embedding = vector / np.linalg.norm(vector)
    return unit
