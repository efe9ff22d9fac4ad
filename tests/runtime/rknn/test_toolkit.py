"""The toolkit's process: what is said where it is missing, late, killed or refuses, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.toolkit import needs_toolkit

from edgepress.common.errors import UserError
from edgepress.runtime.rknn import toolkit as module
from edgepress.runtime.rknn.toolkit import Toolkit


def list_child_pids() -> set[str]:
    """The numbers of this process's children."""
    tasks = Path("/proc/self/task").iterdir()
    return {child for task in tasks for child in (task / "children").read_text("ascii").split()}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Other files' tests may keep a worker of their own."""
    before = list_child_pids()
    yield
    assert list_child_pids() <= before


def test_a_missing_toolkit_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(module.PYTHON_VARIABLE, str(tmp_path / "python"))
    with Toolkit() as toolkit, pytest.raises(UserError, match=r"not installed .*'make setup-rknn'"):
        toolkit.call("hello")


def test_a_python_without_the_toolkit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.PYTHON_VARIABLE, sys.executable)
    with Toolkit() as toolkit, pytest.raises(UserError, match=r"No module named|No package metadata"):
        toolkit.call("hello")


@needs_toolkit
def test_the_toolkit_tells_its_version_and_what_it_took() -> None:
    with Toolkit() as toolkit:
        done = toolkit.call("hello")
        folder = toolkit.folder
        assert folder.is_dir()
    assert done.answer["toolkit"].startswith("2.")
    assert done.peak_bytes > 50e6
    assert done.seconds > 0
    assert not folder.exists()


@needs_toolkit
def test_what_takes_too_long_is_killed_and_the_next_job_starts_anew() -> None:
    with Toolkit(timeout_s=0.01) as toolkit, pytest.raises(UserError, match="took more than 0 s in 'hello'"):
        toolkit.call("hello")
    with Toolkit() as toolkit:
        assert toolkit.call("hello").answer


@needs_toolkit
def test_a_worker_that_is_killed_is_told() -> None:
    with Toolkit() as toolkit:
        toolkit.folder  # noqa: B018  starts it
        victim = toolkit._process
        assert victim is not None

        def kill() -> None:
            time.sleep(0.1)
            os.kill(victim.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(UserError, match=r"ended.* in 'hello'; give it more time or memory"):
            toolkit.call("hello")
        killer.join()


@needs_toolkit
def test_what_the_toolkit_refuses_is_one_sentence(tmp_path: Path) -> None:
    with Toolkit() as toolkit, pytest.raises(UserError, match=r"refuses to build: .*") as raised:
        toolkit.call("build", model="m", onnx=str(tmp_path / "none.onnx"), config={"target_platform": "rk3588"})
    assert "\n" not in str(raised.value)
