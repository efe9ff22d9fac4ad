"""Places of files in results.json: none of them says where folders of this machine are.

What was compared is named by the ends of its paths; digests say which files those were. The images are found by paths
that begin at results.json, which stay right while both move together.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...storage.links import HUB_SNAPSHOTS

HUB_PREFIX = "models--"  # of a repository's folder in the Hub's cache, ORGANIZATION--NAME


def name_location(path: Path | str) -> str:
    """Returns what results call a file or folder.

    In the current folder, that is its path from there; in the cache of the Hugging Face Hub, its repository; and
    elsewhere its name with that of the folder that it is in.
    """
    location = Path(os.path.normpath(Path(path).absolute()))
    if location != Path.cwd() and location.is_relative_to(Path.cwd()):
        return str(location.relative_to(Path.cwd()))
    if HUB_SNAPSHOTS in location.parts[1:]:
        repository = location.parts[location.parts.index(HUB_SNAPSHOTS) - 1]
        if repository.startswith(HUB_PREFIX):
            return repository.removeprefix(HUB_PREFIX).replace("--", "/")
    return "/".join(location.parts[1:][-2:])


def relate_path(path: Path | str, folder: Path) -> str:
    """Returns how a file is reached from a folder. On another drive of Windows that is its absolute path."""
    try:
        return os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    except ValueError:
        return str(path)


def locate(path: str, folder: Path) -> str:
    """Returns the absolute path that `relate_path` made relative; earlier releases stored absolute ones."""
    return str((folder / path).resolve())
