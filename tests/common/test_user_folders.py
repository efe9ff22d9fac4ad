"""The XDG Base Directory Specification: a variable counts if it holds an absolute path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgepress.common.user_folders import (
    get_cache_folder,
    get_check_cache_folder,
    get_graph_cache_folder,
    get_traceback_folder,
)

CACHE, STATE = "XDG_CACHE_HOME", "XDG_STATE_HOME"


@pytest.mark.parametrize(
    ("get_folder", "variable", "path"),
    [
        (get_cache_folder, CACHE, "edgepress"),
        (get_graph_cache_folder, CACHE, "edgepress/graphs"),
        (get_check_cache_folder, CACHE, "edgepress/checks"),
        (get_traceback_folder, STATE, "edgepress/tracebacks"),
    ],
)
def test_the_variable_says_where(
    get_folder: Callable[[], Path], variable: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "/somewhere")
    assert get_folder() == Path("/somewhere", path)


@pytest.mark.parametrize("value", [None, "", "relative/cache"])
def test_otherwise_it_is_in_the_home_folder(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    for variable in (CACHE, STATE):
        monkeypatch.delenv(variable)
        if value is not None:
            monkeypatch.setenv(variable, value)
    assert get_cache_folder() == Path("/home/someone/.cache/edgepress")
    assert get_traceback_folder() == Path("/home/someone/.local/state/edgepress/tracebacks")
