"""Where the original pipeline and its LoRAs are on this machine: kept beside an artifact, and not published.

The manifest names them without their places, so that the same inputs give the same bytes wherever they lie.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .files import write_json
from .layout import Artifact
from .strict_json import parse_strict_json

KEY, LORAS_KEY = "source", "loras"
# A path, perhaps behind a word as in local-dir:, that begins at the root, at home, or in or above the current folder.
PLACE = re.compile(r"(?P<prefix>[\w-]+:)?(?:[/~]|\.\.?/).*?(?P<name>[^/]+)/*")
RELATIVE = re.compile(r"(?P<prefix>[\w-]+:)?.*/(?P<name>[^/]+)/*")
PATH_KEYS = ("prompts", "clip")  # whose values are names or paths, and so paths if there is a slash in them


def write_source_location(source: Path, artifact: Artifact, loras: Sequence[str] = ()) -> None:
    """Remembers where the pipeline is that an artifact was made from, and its LoRAs as `PATH:WEIGHT`."""
    write_json({KEY: str(source.resolve()), LORAS_KEY: list(loras)}, artifact.local)


def find_source(artifact: Artifact) -> Path | None:
    """Finds the pipeline that an artifact was made from; None if it is not on this machine, or nothing says where."""
    source = Path(str(_read_locations(artifact).get(KEY, "")))
    return source if source.is_absolute() and source.is_dir() else None


def find_source_loras(artifact: Artifact) -> tuple[str, ...]:
    """Finds the LoRAs that an artifact was made with, as `PATH:WEIGHT`; empty if nothing says where they are."""
    loras = _read_locations(artifact).get(LORAS_KEY, [])
    return tuple(map(str, loras)) if isinstance(loras, list) else ()


def _read_locations(artifact: Artifact) -> dict[str, Any]:
    try:
        return dict(parse_strict_json(artifact.local.read_text("utf-8")))
    except (OSError, ValueError, TypeError):  # it is written again when the artifact is made again
        return {}


def remove_places(settings: Any, key: str = "") -> Any:
    """Settings in which paths are replaced by the names of the files and folders that they lead to.

    Args:
        settings: Settings of any depth.
        key: The key that they are the value of.
    """
    if isinstance(settings, dict):
        return {name: remove_places(value, name) for name, value in settings.items()}
    if isinstance(settings, list):
        return [remove_places(value, key) for value in settings]
    if not isinstance(settings, str):
        return settings
    match = PLACE.fullmatch(settings) or (RELATIVE.fullmatch(settings) if key in PATH_KEYS else None)
    return f"{match['prefix'] or ''}{match['name']}" if match else settings
