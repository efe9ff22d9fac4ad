"""A server on a small artifact, which the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from helpers.server import LIMITS, RunningServer, run_server
from helpers.small_artifact import write_small_artifact


@pytest.fixture(scope="session")
def small_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact whose steps take about a millisecond. Tests must not change it."""
    folder = tmp_path_factory.mktemp("small") / "small"
    (folder / "onnx").mkdir(parents=True)
    write_small_artifact(folder)
    return folder


@pytest.fixture(scope="session")
def server(small_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with run_server(small_artifact, tmp_path_factory.mktemp("server"), *LIMITS) as running:
        yield running


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened
