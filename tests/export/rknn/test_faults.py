"""Faults while exporting: one sentence each, and the artifact as it was. With the toolkit, seconds each."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.previous_export import check_untouched
from helpers.toolkit import needs_toolkit

from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.export.rknn.exporter import export_rknn
from edgepress.recipes.schema import RknnSettings

SETTINGS = RknnSettings(target="rk3588", precision="fp16", max_prompt_tokens=32)
TEXT = ("text_encoder",)


def list_workers() -> list[int]:
    """The processes of the toolkit's worker that are children of this one."""
    tasks = Path("/proc/self/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text("ascii").split()]
    return [child for child in children if b"worker.py" in Path(f"/proc/{child}/cmdline").read_bytes()]


@contextmanager
def kill_worker(before: set[int], stage: Path) -> Iterator[None]:
    """Kills the worker that is there when a part's ONNX is being built."""
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(0.05):
            new = [worker for worker in list_workers() if worker not in before]
            if new and (stage / "tokenizer" / "tokenizer.json").exists():
                time.sleep(0.5)
                os.kill(new[0], signal.SIGKILL)
                return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        ended.set()
        killer.join()


@needs_toolkit
@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_leaves_the_artifact_as_it_was(tiny: Path, occupied: Path) -> None:
    stage = occupied / ".work" / "export-rknn"
    with kill_worker(set(list_workers()), stage), pytest.raises(UserError, match=r"ended.* in 'build'; give it more"):
        export_rknn(tiny, occupied, SETTINGS, TEXT)
    check_untouched(occupied)


@contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """As on a full disk, no file grows beyond so many bytes."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


@needs_toolkit
@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_leaves_the_artifact_as_it_was(tiny: Path, occupied: Path) -> None:
    words = ["export", "rknn", "--recipe", "rk3588", "--model", str(tiny), "--output", str(occupied)]
    with limit_file_size(2**17):
        result = CliRunner().invoke(main, [*words, "--component", "text_encoder"])
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1].startswith("Error: There is no room left")
    check_untouched(occupied)


@needs_toolkit
def test_what_the_board_cannot_hold_is_refused_before_anything_is_built(
    tiny: Path, occupied: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "board.yaml"
    recipe.write_text("device: board\nrknn: {memory: 1}\n")
    words = ["export", "rknn", "--recipe", str(recipe), "--model", str(tiny), "--output", str(occupied)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "more than the 1 GiB of the board); 'edgepress export rknn --plan' shows what it can." in result.stderr
    check_untouched(occupied)
