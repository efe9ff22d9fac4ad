"""Publishing a folder of an artifact: a process that is killed at any time loses nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.storage.publishing import artifact_lock, publish_folder


def write_folder(path: Path, content: str) -> Path:
    path.mkdir(parents=True)
    (path / "file").write_text(content)
    return path


def read_files(artifact: Path) -> dict[str, str]:
    """The contents of an artifact folder, without the lock."""
    contents = {
        path.relative_to(artifact).as_posix(): path.read_text() for path in artifact.rglob("*") if path.is_file()
    }
    return {name: content for name, content in contents.items() if name != ".work/lock"}


def test_a_published_folder_replaces_the_old_one(tmp_path: Path) -> None:
    for content in ("old", "new"):
        with artifact_lock(tmp_path) as work:
            publish_folder(write_folder(work / "stage", content), tmp_path / "onnx")
        assert read_files(tmp_path) == {"onnx/file": content}


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("failed_at", [1, 2])
def test_a_rename_that_fails_leaves_the_old_folder_in_its_place(
    failed_at: int, failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "onnx", "old")
    renames: list[Path] = []
    rename = Path.rename

    def fail_once(self: Path, target: Path) -> Path:
        renames.append(self)
        if len(renames) == failed_at:
            raise failure
        return rename(self, target)

    with monkeypatch.context() as patched, artifact_lock(tmp_path) as work:
        staged = write_folder(work / "stage", "new")
        patched.setattr(Path, "rename", fail_once)
        with pytest.raises(type(failure)):
            publish_folder(staged, tmp_path / "onnx")
        assert read_files(tmp_path) == {"onnx/file": "old", ".work/stage/file": "new"}


def test_a_kill_leaves_the_new_folder_or_the_old_one(tmp_path: Path) -> None:
    write_folder(tmp_path / "onnx", "new")
    write_folder(tmp_path / ".work" / "replaced-onnx", "old")
    write_folder(tmp_path / ".work" / "replaced-rknn", "second")
    with artifact_lock(tmp_path):
        assert read_files(tmp_path) == {"onnx/file": "new", "rknn/file": "second"}


def test_an_artifact_that_was_created_for_nothing_is_removed(tmp_path: Path) -> None:
    with suppress(ValueError), artifact_lock(tmp_path / "a" / "b") as work:
        assert work.is_dir()
        raise ValueError("refused")
    assert list(tmp_path.iterdir()) == []


def test_unfinished_work_and_folders_that_were_there_stay(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new"):
        with artifact_lock(tmp_path / name) as work:
            if name == "new":
                (work / "unit").touch()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "empty",
        "new",
        "new/.work",
        "new/.work/unit",
    ]


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    for _ in range(2):
        with artifact_lock(tmp_path), pytest.raises(UserError, match="Another edgepress process"):
            artifact_lock(tmp_path).__enter__()


def test_a_lock_whose_file_is_removed_by_its_last_owner_is_taken_again(tmp_path: Path) -> None:
    """Many processes in turn: no two are ever in at once."""
    inside: list[int] = []
    crowded: list[int] = []

    def enter(number: int) -> None:
        for _ in range(50):
            try:
                with artifact_lock(tmp_path / "artifact"):
                    inside.append(number)
                    if len(inside) > 1:
                        crowded.append(number)
                    inside.remove(number)
            except UserError:
                continue

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, range(4)))
    assert crowded == []
