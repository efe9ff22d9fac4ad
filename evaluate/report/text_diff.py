"""Compares recognized with expected text, character by character, for display. The scores are computed elsewhere."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

DiffKind = Literal["same", "missing", "extra"]


class DiffSpan(NamedTuple):
    """Some characters: recognized as expected, expected but missing, or recognized but not expected."""

    kind: DiffKind
    text: str


def diff_text(expected: Sequence[str], recognized: Sequence[str]) -> tuple[DiffSpan, ...]:
    """Compares lines of text.

    Case, punctuation and white space are ignored, as in the scores. Recognized characters are returned unchanged.

    Args:
        expected: the lines that the image should show.
        recognized: the lines that OCR recognized.
    """
    expected_text, recognized_text = "\n".join(expected), "\n".join(recognized)
    keys = [[_normalize(character) for character in text] for text in (expected_text, recognized_text)]
    operations = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes()
    return tuple(_merge_spans(_iter_spans(operations, expected_text, recognized_text)))


def _iter_spans(
    operations: Iterable[tuple[str, int, int, int, int]], expected: str, recognized: str
) -> Iterator[DiffSpan]:
    for operation, i, j, k, m in operations:
        if operation == "equal":
            yield DiffSpan("same", recognized[k:m])
        else:
            yield DiffSpan("missing", "".join(character for character in expected[i:j] if _normalize(character)))
            for character in recognized[k:m]:
                yield DiffSpan("extra" if _normalize(character) else "same", character)


def _merge_spans(spans: Iterable[DiffSpan]) -> list[DiffSpan]:
    """Merges neighbors of the same kind and drops empty spans."""
    merged: list[DiffSpan] = []
    for span in spans:
        if merged and merged[-1].kind == span.kind:
            merged[-1] = DiffSpan(span.kind, merged[-1].text + span.text)
        elif span.text:
            merged.append(span)
    return merged


def _normalize(character: str) -> str:
    """Returns what a character is compared by; empty for punctuation and white space."""
    if character.isspace() or unicodedata.category(character).startswith("P"):
        return ""
    return unicodedata.normalize("NFKC", character).casefold()
