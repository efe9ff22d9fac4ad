"""The user's folders that edgepress writes to outside of artifacts (XDG Base Directory Specification).

Each function raises RuntimeError where the user has no home folder. The folders may not exist.
"""

from __future__ import annotations

import os
from pathlib import Path

NAME = "edgepress"


def get_cache_folder() -> Path:
    """Returns the folder of what can be made again, in the user's cache."""
    return _resolve("XDG_CACHE_HOME", ".cache")


def get_graph_cache_folder() -> Path:
    """Returns the folder of traced graphs, in the user's cache."""
    return get_cache_folder() / "graphs"


def get_check_cache_folder() -> Path:
    """Returns the folder of checks that parts of pipelines have passed, in the user's cache."""
    return get_cache_folder() / "checks"


def get_traceback_folder() -> Path:
    """Returns the folder of saved tracebacks, in the user's state folder."""
    return _resolve("XDG_STATE_HOME", ".local/state") / "tracebacks"


def get_server_folder() -> Path:
    """Returns the folder of a server's templates and generated images, in the user's state folder."""
    return _resolve("XDG_STATE_HOME", ".local/state") / "server"


def _resolve(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, ""))
    return (folder if folder.is_absolute() else Path.home() / default) / NAME
