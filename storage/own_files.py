"""Tells the files that edgepress writes beside a model from the user's of the same names, which are not replaced."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from .checksums import LINE
from .layout import CHECKSUMS_NAME, MANIFEST, MODEL, Artifact
from .source_location import KEY, LORAS_KEY
from .strict_json import parse_strict_json


def check_own_files(artifact: Artifact) -> None:
    """Checks that nothing but what edgepress wrote is in the places of the files that go with a model.

    Raises:
        UserError: A SHA256SUMS, timings.json or local.json is the user's.
    """
    require_own(artifact.path / CHECKSUMS_NAME, _lists_a_model)
    require_own(artifact.timings, _holds_seconds)
    require_own(artifact.local, _holds_locations)


def require_own(file: Path, is_own: Callable[[Path], bool]) -> None:
    """Checks that a file which is going to be replaced is not the user's.

    Args:
        file: The file; it need not exist.
        is_own: Whether edgepress wrote it, by its content.

    Raises:
        UserError: It is the user's.
    """
    if os.path.lexists(file) and not (file.is_file() and is_own(file)):
        raise UserError(
            f"{file} was not made by edgepress, which would replace it. Choose another output folder, or move it to "
            "another place."
        )


def _lists_a_model(file: Path) -> bool:
    """Whether most lines, since one may be damaged, are hashes of a manifest and what is in `model`."""
    lines = file.read_text("utf-8", errors="replace").splitlines()
    paths = [match["path"] for match in map(LINE.fullmatch, lines) if match]
    published = [path for path in paths if path == MANIFEST or path.startswith(f"{MODEL}/")]
    return 2 * len(published) > len(lines)


def _holds_seconds(file: Path) -> bool:
    content = _read_object(file)
    return bool(content) and all(type(value) in (int, float) for value in content.values())


def _holds_locations(file: Path) -> bool:
    content = _read_object(file)
    return KEY in content and content.keys() <= {KEY, LORAS_KEY}


def _read_object(file: Path) -> dict[str, Any]:
    """A JSON object; empty if the file holds none."""
    try:
        return parse_strict_json(file.read_text("utf-8"))
    except ValueError:
        return {}
