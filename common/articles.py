"""The indefinite article before the name of a class."""

from __future__ import annotations

SPOKEN_WITH_VOWEL = "FHLMNRSX"  # where the letter itself is spoken, as in LTX


def add_article(name: str) -> str:
    """Returns the name of a class, with or without quotes, after "a" or "an", by how it is spoken: an AutoencoderKL.

    A "U" is spoken as the letter, as in UNet.
    """
    bare = name.lstrip("'\"`")
    first, second = bare[:1], bare[1:2]
    has_vowel = first in tuple("AEIO") or (first in tuple(SPOKEN_WITH_VOWEL) and (second.isupper() or second.isdigit()))
    return f"{'an' if has_vowel else 'a'} {name}"
