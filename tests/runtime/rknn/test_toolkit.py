"""The toolkit's process: errors if it is missing, slow, killed or fails, and that no process is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.toolkit import needs_toolkit

from edgepress.common.errors import UserError
from edgepress.runtime.rknn import toolkit as module
from edgepress.runtime.rknn.toolkit import Toolkit, find_stale_folders


def list_child_pids() -> set[str]:
    """Lists the pids of this process's children."""
    tasks = Path("/proc/self/task").iterdir()
    return {child for task in tasks for child in (task / "children").read_text("ascii").split()}


@pytest.fixture(autouse=True)
def check_children() -> Iterator[None]:
    """No test leaves a process behind. Tests of other files may have one running."""
    before = list_child_pids()
    yield
    assert list_child_pids() <= before


def test_a_missing_toolkit_is_reported_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(module.PYTHON_VARIABLE, str(tmp_path / "python"))
    with Toolkit() as toolkit, pytest.raises(UserError, match=r"not installed .*Run 'make setup-rknn'"):
        toolkit.call("version")


def test_a_python_without_the_toolkit_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.PYTHON_VARIABLE, sys.executable)
    with Toolkit() as toolkit, pytest.raises(UserError, match=r"No module named|No package metadata"):
        toolkit.call("version")


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> str:
    """A Python that can run the worker, though it has no toolkit."""
    monkeypatch.setenv(module.PYTHON_VARIABLE, sys.executable)
    return sys.executable


def read_environment(pid: int) -> dict[str, str]:
    """Reads the environment of a process that was just started; the system shows it a moment later."""
    for _ in range(500):
        if text := Path(f"/proc/{pid}/environ").read_text():
            break
        time.sleep(0.01)
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


@pytest.mark.usefixtures("python")
def test_temporary_files_of_the_toolkit_are_in_the_folder_that_is_deleted(tmp_path: Path) -> None:
    left = tmp_path / "toolkit" / "left-by-a-killed-run"
    left.parent.mkdir()
    left.touch()
    before = list_child_pids()
    with Toolkit(folder=tmp_path / "toolkit") as toolkit:
        folder = toolkit.folder
        assert folder == tmp_path / "toolkit"
        assert not left.exists()
        (pid,) = list_child_pids() - before
        temporary = read_environment(pid)["TMPDIR"]
        assert Path(temporary).is_dir()
        assert Path(temporary).is_relative_to(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_a_killed_process_left_is_deleted_by_the_next_one(
    tmp_path: Path, python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    script = "from edgepress.runtime.rknn.toolkit import Toolkit; print(Toolkit().folder, flush=True); input()"
    with subprocess.Popen([python, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        os.utime(folder / "log", (0, 0))
        assert find_stale_folders() == []  # it is in use
        process.kill()
    while not find_stale_folders():  # until its worker has died as well
        time.sleep(0.01)
    assert folder.is_dir()
    with Toolkit() as toolkit:
        assert toolkit.folder.parent == tmp_path
        assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@needs_toolkit
def test_a_reply_has_the_version_the_time_and_the_memory_and_an_error_is_a_single_line(tmp_path: Path) -> None:
    with Toolkit() as toolkit:
        reply = toolkit.call("version")
        folder = toolkit.folder
        assert folder.is_dir()
        with pytest.raises(UserError, match=r"failed in 'build': .*") as raised:
            toolkit.call("build", model="m", onnx=str(tmp_path / "none.onnx"), config={"target_platform": "rk3588"})
    assert "\n" not in str(raised.value)
    assert reply.answer["toolkit"].startswith("2.")
    assert reply.peak_bytes > 50e6
    assert reply.seconds > 0
    assert not folder.exists()


@needs_toolkit
def test_a_slow_job_is_killed_at_once_and_the_next_one_starts_a_new_worker() -> None:
    """A worker in a job does not notice that it is to exit, so no time is left to it."""
    with Toolkit(timeout_s=0.01) as toolkit:
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(UserError, match="took more than 0 s in 'version'"):
                toolkit.call("version")
            assert time.monotonic() - started < module.EXIT_TIMEOUT_S


@needs_toolkit
def test_a_killed_worker_is_reported() -> None:
    with Toolkit() as toolkit:
        toolkit.folder  # noqa: B018  starts it
        victim = toolkit._process
        assert victim is not None

        def kill() -> None:
            time.sleep(0.1)
            os.kill(victim.pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(UserError, match=r"exited unexpectedly in 'version'.*Free memory"):
            toolkit.call("version")
        killer.join()
