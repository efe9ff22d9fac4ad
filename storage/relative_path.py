"""Paths that a file of an artifact names: they stay in the artifact's folder, whoever wrote the file."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

MAX_NAME_BYTES = 255  # of a file, on every system that edgepress runs on
DRIVE = re.compile(r"[A-Za-z]:")  # which begins an absolute path on Windows


def is_relative_path(path: str) -> bool:
    """Whether a path can exist below the folder that it is relative to: not absolute, without `.` and `..`."""
    parts = re.split(r"[/\\]", path)
    if any(len(part.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES for part in parts):
        return False
    is_plain = "\0" not in path and not any(part in ("", ".", "..") for part in parts)
    return is_plain and not DRIVE.fullmatch(parts[0])


def is_file_name(path: str) -> bool:
    """Whether a path is that of a file in the folder itself."""
    return is_relative_path(path) and not re.search(r"[/\\]", path)


def _require_relative(path: str) -> str:
    if not is_relative_path(path):
        raise ValueError(f"{path!r} is not a path below this folder")
    return path


def _require_name(path: str) -> str:
    if not is_file_name(path):
        raise ValueError(f"{path!r} is not the name of a file in this folder")
    return path


def _require_possible(path: str) -> str:
    is_short = all(len(part.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES for part in re.split(r"[/\\]", path))
    if "\0" in path or not is_short:
        raise ValueError("no file can have this path")
    return path


PossiblePath = Annotated[str, AfterValidator(_require_possible)]
"""A path, absolute or not, that a file can have."""

RelativePath = Annotated[str, AfterValidator(_require_relative)]
"""A path below a folder, with forward slashes, that `is_relative_path` accepts."""

FileName = Annotated[str, AfterValidator(_require_name)]
"""The name of a file, or its beginning: a path without slashes."""
