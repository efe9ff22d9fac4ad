"""TODO"""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def suggest_name(name: str, known: Sequence[str]) -> str:
    """The nearest known name, or all of them."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}."
