"""Embeddings of pictures and prompts by a CLIP on disk, each made once in a run."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..pictures import digest_of
from ..registry import Picture
from . import through_open_clip, through_transformers
from .spec import Spec, parse
from .towers import Towers

if TYPE_CHECKING:
    from torch import Tensor

Embedding = npt.NDArray[np.float64]  # (width,), of length 1
LOOK_AHEAD = 2  # a text is cut if it reads otherwise with so many times the context


class Clip:
    """A CLIP whose weights were loaded once, to know that they can be, and are loaded again when first needed."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        towers = load(spec)
        digest = spec.digest
        self.label = f"{spec.name} {digest[:8]}"
        self.version = f"{spec.name}, sha256 {digest}, settings {spec.settings_digest}, {towers.library}"
        self.reads = towers.tokenize is not None
        self._towers: Towers | None = None
        self._lock = Lock()
        self._pictures: dict[str, Embedding] = {}
        self._texts: dict[str, Embedding | None] = {}

    def picture(self, picture: Picture) -> Embedding:
        key = digest_of(picture)
        if key not in self._pictures:
            self._pictures[key] = _unit(self._loaded().image(picture))
        return self._pictures[key]

    def text(self, text: str) -> Embedding | None:
        """None for a text that is longer than this CLIP reads: it would be cut without a word."""
        if text not in self._texts:
            self._texts[text] = self._read(text)
        return self._texts[text]

    def _read(self, text: str) -> Embedding | None:
        towers = self._loaded()
        if towers.tokenize is None:
            raise ValueError("this CLIP has no tokenizer")
        tokens = towers.tokenize(text, towers.context)
        longer = towers.tokenize(text, LOOK_AHEAD * towers.context)
        if not tokens.equal(longer[:, : towers.context]):
            return None
        return _unit(towers.text(tokens))

    def _loaded(self) -> Towers:
        with self._lock:
            if self._towers is None:
                self._towers = load(self._spec)
            return self._towers


def load(spec: Spec) -> Towers:
    """Through open_clip where it is installed or nothing else will do, else through transformers."""
    if spec.form == "transformers":
        return through_transformers.load(spec)
    if spec.form == "name" or through_open_clip.installed():
        return through_open_clip.load(spec)
    return through_transformers.load_open_clip(spec)


@lru_cache(maxsize=1)
def clip_of(text: str) -> Clip:
    """The CLIP that `--clip` names; metrics share it and its embeddings.

    Raises:
        UserError: there is no such CLIP, or its weights are incomplete or of another architecture.
    """
    return Clip(parse(text))


def cosine(one: Embedding, other: Embedding) -> float:
    """-1..1, and 1 for an embedding with itself."""
    return float(np.clip(one @ other, -1, 1))


def _unit(embedding: Tensor) -> Embedding:
    vector = embedding.double().numpy()
    unit: Embedding = vector / np.linalg.norm(vector)
    return unit
