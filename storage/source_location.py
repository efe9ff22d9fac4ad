"""Where the original pipeline and its LoRAs are on this machine: kept beside an artifact, and not published.

The manifest names them without their places, so that the same inputs give the same bytes wherever they lie.
"""

from __future__ import annotations

import os
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
    """Remembers where the pipeline is that an artifact was made from, and its LoRAs as `PATH:WEIGHT`.

    Paths begin at the artifact: none names the folders above, and they stay right while all move together.
    """
    write_json(
        {KEY: _relate(source, artifact), LORAS_KEY: [_relate_lora(lora, artifact) for lora in loras]}, artifact.local
    )


def find_source(artifact: Artifact) -> Path | None:
    """Finds the pipeline that an artifact was made from; None if it is not on this machine, or nothing says where."""
    stored = _read_locations(artifact).get(KEY)
    source = _locate(stored, artifact) if isinstance(stored, str) else artifact.path.resolve()
    return source if source.is_dir() and source != artifact.path.resolve() else None


def find_source_loras(artifact: Artifact) -> tuple[str, ...]:
    """Finds the LoRAs that an artifact was made with, as `PATH:WEIGHT`; empty if nothing says where they are."""
    loras = _read_locations(artifact).get(LORAS_KEY, [])
    if not isinstance(loras, list):
        return ()
    parts = [str(lora).rpartition(":") for lora in loras]
    return tuple(f"{_locate(path, artifact)}:{weight}" for path, _, weight in parts)


def _relate_lora(lora: str, artifact: Artifact) -> str:
    path, _, weight = lora.rpartition(":")
    return f"{_relate(path, artifact)}:{weight}"


def _relate(path: Path | str, artifact: Artifact) -> str:
    try:
        return os.path.relpath(Path(path).resolve(), artifact.path.resolve())
    except ValueError:  # on another drive of Windows
        return str(Path(path).resolve())


def _locate(path: str, artifact: Artifact) -> Path:
    """Also reads the absolute paths of earlier releases."""
    return (artifact.path / path).resolve()


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
