"""Fixtures for tests of commands."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import NoReturn

import pytest
from helpers.command_endings import WORK_BEGINS


def begin_work(*_: object, **__: object) -> NoReturn:
    raise SystemExit(WORK_BEGINS)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands end where they first report progress, serve, or call pip: what they check is checked by then."""

    @contextmanager
    def show_no_bars(_: float) -> Iterator[Callable[..., NoReturn]]:
        yield begin_work

    monkeypatch.setattr("edgepress.cli.console.progress_bars", show_no_bars)
    monkeypatch.setattr("edgepress.cli.console.no_progress", begin_work)
    monkeypatch.setattr("edgepress.serving.server._Run", begin_work)
    copying = SimpleNamespace(copytree=begin_work, ignore_patterns=shutil.ignore_patterns)
    monkeypatch.setattr("edgepress.serving.wheelhouse.shutil", copying)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
