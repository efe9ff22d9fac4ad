"""Where the original pipeline is on this machine: kept beside an artifact, and no part of what is published.

The manifest names the pipeline without its place, so that the same inputs give the same bytes wherever they lie.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .files import write_json
from .layout import Artifact
from .strict_json import parse_strict_json

KEY = "source"
ABSOLUTE = re.compile(r"(?P<prefix>[\w-]+:)?[/~].*/(?P<name>[^/]+)/?")  # a path, perhaps behind a word as in local-dir:


def write_source_location(source: Path, artifact: Artifact) -> None:
    """Remembers where the pipeline is that an artifact was made from."""
    write_json({KEY: str(source.resolve())}, artifact.local)


def find_source(artifact: Artifact) -> Path | None:
    """Finds the pipeline that an artifact was made from; None if it is not on this machine, or nothing says where."""
    try:
        source = Path(str(parse_strict_json(artifact.local.read_text("utf-8")).get(KEY, "")))
    except (OSError, ValueError):  # it is written again when the artifact is made again
        return None
    return source if source.is_absolute() and source.is_dir() else None


def remove_places(settings: Any) -> Any:
    """Settings in which absolute paths are replaced by the names of the files and folders that they lead to."""
    if isinstance(settings, dict):
        return {key: remove_places(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [remove_places(value) for value in settings]
    match = ABSOLUTE.fullmatch(settings) if isinstance(settings, str) else None
    return f"{match['prefix'] or ''}{match['name']}" if match else settings
