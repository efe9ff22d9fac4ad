"""Suggests a name where an unknown one was given."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def suggest_name(name: str, known: Sequence[str]) -> str:
    """Returns the end of an error message: the known name that is most similar, or all known names."""
    matches = difflib.get_close_matches(name, known, 1)
    return f"did you mean {matches[0]!r}?" if matches else f"known: {', '.join(known)}."
