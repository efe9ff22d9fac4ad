"""Lists of hashes beside files that are written again and again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edgepress.storage.checksums import read_checksums
from edgepress.storage.result_checksums import record_results

NAMES = ("a.json", "b.md")


def test_what_is_written_is_listed_as_sha256sum_reads_it(tmp_path: Path) -> None:
    (tmp_path / "of-the-user").touch()
    for content in ("1", "2"):
        with record_results(NAMES, tmp_path):
            (tmp_path / "a.json").write_text(content)
        assert (read_checksums(tmp_path) or {}).keys() == {"a.json"}
        subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, check=True)


def test_a_list_never_contradicts_what_an_interrupted_command_wrote(tmp_path: Path) -> None:
    with record_results(NAMES, tmp_path, list_name="local.sha256"):
        (tmp_path / "a.json").write_text("1")
    with pytest.raises(IsADirectoryError), record_results(NAMES, tmp_path, list_name="local.sha256"):
        tmp_path.write_text("2")
    assert not (tmp_path / "local.sha256").exists()


@pytest.mark.parametrize("content", [f"{'0' * 64}  thesis.tex\n", "none of sha256sum"])
def test_the_lists_of_users_stay(tmp_path: Path, content: str) -> None:
    (tmp_path / "SHA256SUMS").write_text(content)
    with record_results(NAMES, tmp_path):
        (tmp_path / "a.json").write_text("1")
    assert (tmp_path / "SHA256SUMS").read_text() == content
