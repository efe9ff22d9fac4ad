"""Tells the JSON files that edgepress writes from those of the same name that other programs write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from ..common.regular_files import read_regular_text


class JsonAuthor(StrEnum):
    """What wrote a JSON file.

    Attributes:
        EDGEPRESS: It has most of the keys of edgepress's schema that are looked for.
        ANOTHER: It is valid JSON without them.
        UNKNOWN: It is missing, or too damaged to tell.
    """

    EDGEPRESS = "edgepress"
    ANOTHER = "another program"
    UNKNOWN = "unknown"


def identify_author(file: Path, keys: Sequence[str]) -> JsonAuthor:
    """Says what wrote a JSON file.

    Args:
        file: The file; it need not exist.
        keys: Keys of which no other program writes most together. A damaged file must still contain most of them.
    """
    try:
        text = read_regular_text(file, errors="replace")
    except OSError:
        return JsonAuthor.UNKNOWN
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        count = sum(f'"{key}":' in text for key in keys)
        return JsonAuthor.EDGEPRESS if 2 * count > len(keys) else JsonAuthor.UNKNOWN
    count = len(set(keys) & content.keys()) if isinstance(content, dict) else 0
    return JsonAuthor.EDGEPRESS if 2 * count > len(keys) else JsonAuthor.ANOTHER
