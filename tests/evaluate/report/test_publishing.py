"""Results of different plans side by side, the latest on top, and none lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.result_rows import make_prompt, make_results, make_sample

from edgepress.evaluate.report.publishing import (
    EVALUATION_FILES,
    get_plan_folder,
    publish_reports,
    publish_results,
    withdraw_latest,
)
from edgepress.evaluate.results.results_file import load_results
from edgepress.evaluate.results.schema import Results
from edgepress.storage.checksums import read_checksums


@pytest.fixture
def small() -> Results:
    return make_results([make_sample(make_prompt("a"), 30)])


@pytest.fixture
def large() -> Results:
    return make_results([make_sample(make_prompt(name), 30) for name in "abc"])


def publish(results: Results, output: Path) -> None:
    publish_results(results, output)
    publish_reports(results, output)


def read_files(folder: Path) -> dict[str, bytes]:
    """What all files hold, but for the lists of their hashes."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "SHA256SUMS"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.slow
def test_the_latest_results_are_on_top_and_all_are_in_folders(small: Results, large: Results, tmp_path: Path) -> None:
    publish(large, tmp_path)
    first = read_files(get_plan_folder(large, tmp_path))
    publish(small, tmp_path)
    assert read_files(get_plan_folder(large, tmp_path)) == first
    assert load_results(tmp_path / "results.json") == small
    assert load_results(get_plan_folder(small, tmp_path) / "results.json") == small
    folders = {get_plan_folder(results, tmp_path).name for results in (small, large)}
    assert {file.name for file in tmp_path.iterdir()} == {*EVALUATION_FILES, "SHA256SUMS", *folders}
    assert {file.name for folder in folders for file in (tmp_path / folder).iterdir()} == {
        *EVALUATION_FILES,
        "SHA256SUMS",
    }


def test_what_is_withdrawn_remains_in_its_folder(small: Results, tmp_path: Path) -> None:
    publish(small, tmp_path)
    folder = get_plan_folder(small, tmp_path)
    first = read_files(folder)
    assert withdraw_latest(tmp_path) == folder
    assert read_files(folder) == first
    assert list(tmp_path.iterdir()) == [folder]
    assert withdraw_latest(tmp_path) is None


@pytest.mark.slow
def test_results_of_an_earlier_version_are_moved_into_a_folder(small: Results, large: Results, tmp_path: Path) -> None:
    """They were on top only."""
    publish(small, tmp_path / "old")
    folder = get_plan_folder(small, tmp_path / "old")
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    before = read_files(tmp_path / "old")
    assert withdraw_latest(tmp_path / "old") == folder
    assert read_files(folder) == before
    publish(large, tmp_path / "old")
    assert read_files(folder) == before


@pytest.mark.parametrize("content", ['{"schema_version": 99}', "", "[" * 9000])
def test_results_that_cannot_be_read_are_not_lost(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    (tmp_path / "report.md").write_text("a verdict")
    folder = withdraw_latest(tmp_path)
    assert folder
    assert folder.name.startswith("earlier-")
    assert read_files(folder) == {"results.json": content.encode(), "report.md": b"a verdict"}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_without_results_stays_as_it_is(tmp_path: Path) -> None:
    assert withdraw_latest(tmp_path / "nowhere") is None
    (tmp_path / "notes.txt").write_text("mine")
    assert withdraw_latest(tmp_path) is None
    assert read_files(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.slow
def test_an_interrupted_withdrawal_is_completed(small: Results, tmp_path: Path) -> None:
    publish(small, tmp_path)
    (tmp_path / "report.html").unlink()
    assert withdraw_latest(tmp_path) == get_plan_folder(small, tmp_path)
    assert len(list(get_plan_folder(small, tmp_path).iterdir())) == len({*EVALUATION_FILES, "SHA256SUMS"})


@contextmanager
def failing_after(operation: str, count: int) -> Iterator[None]:
    """Lets an operation on files succeed a number of times, and then fail."""
    successes, operate = iter(range(count)), getattr(Path, operation)

    def call(path: Path, *arguments: Any, **options: Any) -> Any:
        if next(successes, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return operate(path, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, operation, call)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("count", range(len(EVALUATION_FILES) + 1))
@pytest.mark.parametrize("operation", ["unlink", "replace"])
@pytest.mark.parametrize("is_on_top_only", [False, True])
def test_a_withdrawal_that_fails_loses_no_list_of_hashes(
    is_on_top_only: bool, operation: str, count: int, small: Results, tmp_path: Path
) -> None:
    publish(small, tmp_path)
    folder = get_plan_folder(small, tmp_path)
    if is_on_top_only:  # as earlier versions wrote them
        shutil.rmtree(folder)
    with failing_after(operation, count), suppress(OSError):
        withdraw_latest(tmp_path)
    withdraw_latest(tmp_path)
    assert list(tmp_path.iterdir()) == [folder]
    assert (read_checksums(folder) or {}).keys() == set(EVALUATION_FILES)
    subprocess.run(["sha256sum", "--check", "--strict", "--status", "SHA256SUMS"], cwd=folder, check=True)


@pytest.mark.slow
def test_pages_of_both_folders_differ_in_their_links_only(results: Results, tmp_path: Path) -> None:
    publish(results, tmp_path)
    top, page = ((folder / "report.html").read_text() for folder in (tmp_path, get_plan_folder(results, tmp_path)))
    assert top != page
    assert page.replace('"link":"../', '"link":"').replace('Link":"../', 'Link":"') == top
