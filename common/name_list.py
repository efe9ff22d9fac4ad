"""Names in a message, the first ones of many."""

from __future__ import annotations

from collections.abc import Iterable

MAX_LISTED = 5


def list_names(names: Iterable[str], limit: int = MAX_LISTED) -> str:
    """The first names, and the number of further ones: `a, b and 3 more`.

    Args:
        names: The names.
        limit: How many are listed.
    """
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
