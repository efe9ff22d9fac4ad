"""What OCR read against what was wanted, character by character, to be looked at; scores are counted elsewhere."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

DiffKind = Literal["same", "missing", "extra"]


class DiffSpan(NamedTuple):
    """Some characters: read as wanted, wanted and not read, or read and not wanted."""

    kind: DiffKind
    text: str


def diff_text(wanted: Sequence[str], read: Sequence[str]) -> tuple[DiffSpan, ...]:
    """The lines that were read, with what is missing and what is too much.

    Case, punctuation and white space are no difference, as they are none to the scores; what was read is shown as it
    was read.
    """
    asked, given = "\n".join(wanted), "\n".join(read)
    keys = [_key(character) for character in asked], [_key(character) for character in given]
    steps = difflib.SequenceMatcher(None, *keys, autojunk=False).get_opcodes()
    return tuple(_joined(_pieces(steps, asked, given)))


def _pieces(steps: Iterable[tuple[str, int, int, int, int]], asked: str, given: str) -> Iterator[DiffSpan]:
    for step, i, j, k, m in steps:
        if step == "equal":
            yield DiffSpan("same", given[k:m])
        else:
            yield DiffSpan("missing", "".join(character for character in asked[i:j] if _key(character)))
            yield from (DiffSpan("extra" if _key(character) else "same", character) for character in given[k:m])


def _joined(pieces: Iterable[DiffSpan]) -> list[DiffSpan]:
    """Neighbours of one kind as one piece; empty ones are dropped."""
    joined: list[DiffSpan] = []
    for piece in pieces:
        if joined and joined[-1].kind == piece.kind:
            joined[-1] = DiffSpan(piece.kind, joined[-1].text + piece.text)
        elif piece.text:
            joined.append(piece)
    return joined


def _key(character: str) -> str:
    """What a character counts as; nothing for punctuation and white space."""
    if character.isspace() or unicodedata.category(character).startswith("P"):
        return ""
    return unicodedata.normalize("NFKC", character).casefold()
