"""Failures while exporting: a short message each, and the artifact is unchanged. With the toolkit, seconds each."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.commands import Command
from helpers.previous_export import check_untouched
from helpers.toolkit import needs_toolkit

from edgepress.api.cleaning import clean
from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.export.rknn.exporter import export_rknn
from edgepress.recipes.rknn import RknnSettings
from edgepress.recipes.schema import Recipe
from edgepress.runtime.rknn.toolkit import Toolkit, ToolkitReply

RECIPE = Recipe(device="test", rknn=RknnSettings(target="rk3588", precision="fp16", max_prompt_tokens=32))
TEXT = ("text_encoder",)


def list_workers() -> list[int]:
    """Lists the workers that this process started, by pid."""
    workers = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread or a process has just ended
            children = [int(child) for child in (task / "children").read_text("ascii").split()]
            workers += [child for child in children if b"worker.py" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return workers


def kill_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills the worker that is given a part to build, in the job: stopped until then, it cannot finish before."""
    call, previous = Toolkit.call, set(list_workers())

    def call_and_kill(toolkit: Toolkit, name: str, **arguments: Any) -> ToolkitReply:
        if name == "build":
            (worker,) = set(list_workers()) - previous
            os.kill(worker, signal.SIGSTOP)
            threading.Timer(0.2, os.kill, (worker, signal.SIGKILL)).start()
        return call(toolkit, name, **arguments)

    monkeypatch.setattr(Toolkit, "call", call_and_kill)


@needs_toolkit
@pytest.mark.slow
def test_a_killed_worker_leaves_the_artifact_unchanged(
    tiny: Path, occupied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_builder(monkeypatch)
    with pytest.raises(UserError, match=r"exited unexpectedly in 'build'"):
        export_rknn(tiny, occupied, RECIPE, components=TEXT)
    check_untouched(occupied)


@needs_toolkit
@pytest.mark.slow
def test_a_killed_export_leaves_the_artifact_unchanged_and_the_next_command_removes_the_rest(
    tiny: Path, occupied: Path, tmp_path: Path
) -> None:
    recipe, work = tmp_path / "test.yaml", occupied / ".work"
    recipe.write_text("device: test\nrknn: {target: rk3588, precision: fp16, max_prompt_tokens: 32}\n")
    arguments = ("export", "rknn", "--recipe", recipe, "--model", tiny, "--output", occupied)
    command = Command(*arguments, "--component", "text_encoder")
    while not any(work.glob("stage-rknn-*/tokenizer/tokenizer.json")):  # then the first part is built
        assert command.poll() is None, command.wait().stderr
        time.sleep(0.05)
    command.send_signal(signal.SIGKILL)
    assert command.wait().returncode == -signal.SIGKILL
    assert (occupied / "rknn" / "older").exists()
    assert any(work.glob("stage-toolkit-*/log"))
    while find_workers_in(work):  # a worker ends with its parent
        time.sleep(0.05)
    clean(occupied)
    check_untouched(occupied)


def find_workers_in(folder: Path) -> list[str]:
    """Finds processes whose working directory is in a folder, by pid."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended, or is another user's
            if (process / "cwd").readlink().is_relative_to(folder):
                pids.append(process.name)
    return pids


@contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """Keeps files from growing beyond a size, as on a full disk."""
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, previous[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)


@needs_toolkit
@pytest.mark.slow
def test_a_full_disk_leaves_the_artifact_unchanged(tiny: Path, occupied: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "board.yaml"
    recipe.write_text("device: board\nrknn: {target: rk3588, precision: fp16, max_prompt_tokens: 32}\n")
    arguments = ["export", "rknn", "--recipe", str(recipe), "--model", str(tiny), "--output", str(occupied)]
    with limit_file_size(2**17):
        result = CliRunner().invoke(main, [*arguments, "--component", "text_encoder"])
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1].startswith("Error: No space left")
    check_untouched(occupied)


@needs_toolkit
def test_parts_that_do_not_fit_on_the_board_are_rejected_before_building(
    tiny: Path, occupied: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "board.yaml"
    recipe.write_text("device: board\nrknn: {memory: 1}\n")
    arguments = ["export", "rknn", "--recipe", str(recipe), "--model", str(tiny), "--output", str(occupied)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "the board has 1 GiB). Run 'edgepress export rknn --plan' to see which deployments do." in result.stderr
    check_untouched(occupied)
