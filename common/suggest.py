"""Suggests a name where an unknown one was given."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

MISSPELT = 0.8  # similarity of names that differ by one letter in five


def suggest_name(name: str, known: Sequence[str]) -> str:
    """Returns the end of an error message: the known name that is most similar, or all known names."""
    matches = difflib.get_close_matches(name, known, 1)
    return f"did you mean {matches[0]!r}?" if matches else f"known: {', '.join(known)}."


def find_misspelling(name: str, known: Collection[str]) -> str | None:
    """The known name that an unknown one is probably a misspelling of, if there is one."""
    return next(iter(difflib.get_close_matches(name, sorted(known), 1, MISSPELT)), None)
