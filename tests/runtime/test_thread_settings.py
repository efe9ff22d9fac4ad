"""With how many threads graphs run: as the recipe says, as the user says, and as this machine can."""

from __future__ import annotations

import os

import pytest

from edgepress.runtime import thread_settings
from edgepress.runtime.thread_settings import ThreadSettings, resolve_threads
from edgepress.storage.pipeline_config import RuntimeConfig

RK3588 = tuple(range(8))


@pytest.fixture
def rk3588(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four slow cores, then four fast ones."""
    monkeypatch.setattr(thread_settings, "list_usable_cores", lambda: RK3588)
    monkeypatch.setattr(thread_settings, "list_fast_cores", lambda cores: tuple(core for core in cores if core >= 4))


@pytest.mark.usefixtures("rk3588")
def test_the_recipe_decides_unless_the_user_does(caplog: pytest.LogCaptureFixture) -> None:
    recipe = RuntimeConfig(threads=4, cores="fast")
    assert resolve_threads(recipe) == ThreadSettings(4, (4, 5, 6, 7))
    assert resolve_threads(recipe, threads=2) == ThreadSettings(2, (4, 5, 6, 7))
    assert resolve_threads(recipe, threads=6) == ThreadSettings(6)  # more than there are fast cores
    assert resolve_threads(recipe, threads=0) == ThreadSettings()  # as ONNX Runtime chooses
    assert resolve_threads(RuntimeConfig(cores="fast")) == ThreadSettings(4, (4, 5, 6, 7))
    assert resolve_threads(RuntimeConfig()) == ThreadSettings()
    assert caplog.messages == []


def test_a_machine_with_fewer_cores_runs_fewer_threads_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    count = len(os.sched_getaffinity(0))
    assert resolve_threads(RuntimeConfig(threads=1000, cores="fast")).threads <= count
    assert (
        f"can use {count} cores, so it runs {count} threads instead of the 1000 of the artifact's recipe."
        in caplog.text
    )
    caplog.clear()
    resolve_threads(RuntimeConfig(threads=1), threads=1000)
    assert "instead of the 1000 that were given." in caplog.text
