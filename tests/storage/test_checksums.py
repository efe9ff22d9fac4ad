"""SHA256SUMS: sha256sum accepts what is written, and what sha256sum writes is read."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.storage.checksums import read_checksums, require_checksum, write_checksums
from edgepress.storage.files import hash_file, hash_files

NAMES = ("a.json", "b/weights with spaces.safetensors", "ü", "back\\slash", "line\nbreak")
needs_sha256sum = pytest.mark.skipif(shutil.which("sha256sum") is None, reason="coreutils are not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def sha256sum(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sha256sum", *arguments], cwd=folder, capture_output=True, text=True, check=False)


@needs_sha256sum
def test_sha256sum_accepts_what_is_written(folder: Path) -> None:
    write_checksums(hash_files(folder), folder)
    assert sha256sum(folder, "--strict", "--check", "SHA256SUMS").returncode == 0
    (folder / "a.json").write_text("A.json")
    assert "a.json: FAILED" in sha256sum(folder, "--check", "SHA256SUMS").stdout


@needs_sha256sum
def test_what_sha256sum_writes_is_read(folder: Path) -> None:
    (folder / "SHA256SUMS").write_text(sha256sum(folder, *NAMES).stdout, "utf-8")
    assert read_checksums(folder) == {name: hash_file(folder / name) for name in NAMES}


def test_the_same_files_give_the_same_bytes(folder: Path) -> None:
    files = hash_files(folder)
    write_checksums(files, folder)
    first = (folder / "SHA256SUMS").read_bytes()
    write_checksums(files[::-1], folder)
    assert (folder / "SHA256SUMS").read_bytes() == first


def test_a_folder_without_checksums_has_none(tmp_path: Path) -> None:
    assert read_checksums(tmp_path) is None


@pytest.mark.parametrize("text", ["a", "0" * 64 + " a\n" + "0" * 63 + "  b\n", "0" * 64 + "\n", "\xff"])
def test_a_line_of_another_form_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "SHA256SUMS").write_text(text, "latin-1")
    with pytest.raises(UserError, match=r"SHA256SUMS (has a line|cannot be read).*Copy the folder again"):
        read_checksums(tmp_path)


@pytest.mark.parametrize("change", ["{}\n", "\n{}", "{}#", "{}x", "{0}{0}"])
def test_no_byte_may_differ(folder: Path, change: str) -> None:
    write_checksums(hash_files(folder), folder)
    file = folder / "SHA256SUMS"
    written = file.read_text("utf-8")
    for text in (change.format(written), written[:-1], written.replace("  ", " *", 1), written.replace("\n", "\r\n")):
        file.write_bytes(text.encode())
        with pytest.raises(UserError, match=r"SHA256SUMS has a line"):
            read_checksums(folder)
    file.write_text(written, "utf-8")
    assert read_checksums(folder)


def test_a_file_is_compared_if_it_is_listed(folder: Path) -> None:
    require_checksum(folder / "a.json", {}, "Do it.")
    require_checksum(folder / "a.json", {"a.json": hash_file(folder / "a.json")}, "Do it.")
    with pytest.raises(UserError, match=r"a\.json was changed: its SHA-256 is not the one in SHA256SUMS\. Do it\."):
        require_checksum(folder / "a.json", {"a.json": "0" * 64}, "Do it.")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["../b", "a"], r"lists '\.\./b', which is no path below its folder\. Copy"),
        (["/etc/passwd"], r"lists '/etc/passwd', which is no path"),
        (["./a"], r"lists '\./a', which is no path"),
        (["a" * 300], r"lists 'a{60}…', which is no path"),
        (["a", "a"], "has a line that sha256sum does not write"),
    ],
)
def test_paths_that_no_published_folder_has_are_rejected(tmp_path: Path, paths: list[str], message: str) -> None:
    (tmp_path / "SHA256SUMS").write_text("".join(f"{'0' * 64}  {path}\n" for path in paths))
    with pytest.raises(UserError, match=message):
        read_checksums(tmp_path)
