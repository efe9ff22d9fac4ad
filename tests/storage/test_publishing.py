"""Publishing a folder of an artifact: a process that is killed at any time loses nothing."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.storage.publishing import (
    artifact_lock,
    publish_folder,
    remove_folder,
    shared_lock,
    staging_folder,
)


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


@pytest.mark.parametrize("between", [True, False])
def test_a_kill_leaves_the_new_folder_or_the_old_one(
    between: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two renames, or after them."""
    write_folder(tmp_path / "onnx", "old")
    with monkeypatch.context() as patched, artifact_lock(tmp_path) as work:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        publish_folder(write_folder(work / "stage", "new"), tmp_path / "onnx")
    assert set(read_files(tmp_path).values()) == {"old", "new"}
    if between:
        shutil.rmtree(tmp_path / "onnx")
    with artifact_lock(tmp_path):
        assert read_files(tmp_path) == {"onnx/file": "old" if between else "new"}


def test_folders_of_the_user_stay_whatever_their_names_are(tmp_path: Path) -> None:
    names = ["replaced-notes", "replaced-onnx", "removed-mine", "removed-rknn", "stage-onnx", "export-onnx", "toolkit"]
    names.append(f"replaced-notes-{'0' * 32}")
    for name in names:
        write_folder(tmp_path / ".work" / name, "the user's")
    write_folder(tmp_path / "rknn", "old")
    with artifact_lock(tmp_path) as work:
        with staging_folder(work, "onnx") as stage:
            (stage / "file").write_text("new")
            publish_folder(stage, tmp_path / "onnx")
        remove_folder(tmp_path / "rknn")
    expected = {f".work/{name}/file": "the user's" for name in names}
    assert read_files(tmp_path) == {"onnx/file": "new", **expected}


def test_a_lock_of_another_program_stays(tmp_path: Path) -> None:
    write_folder(tmp_path / ".work", "")
    (tmp_path / ".work" / "lock").write_text("4711")
    with pytest.raises(UserError, match=r"lock was not made by edgepress: it is not empty\. Move it"):
        artifact_lock(tmp_path).__enter__()
    assert (tmp_path / ".work" / "lock").read_text() == "4711"


def test_what_a_killed_process_staged_or_was_removing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "rknn", "old")
    with monkeypatch.context() as patched, artifact_lock(tmp_path) as work:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        remove_folder(tmp_path / "rknn")
        with staging_folder(work, "toolkit"):
            pass
    assert len(list((tmp_path / ".work").iterdir())) == 2
    with artifact_lock(tmp_path) as work:
        assert [path.name for path in work.iterdir()] == ["lock"]


def test_a_shared_lock_keeps_others_from_locking_alone(tmp_path: Path) -> None:
    work = tmp_path / "artifacts" / ".work"
    with shared_lock(work):
        with shared_lock(work), pytest.raises(UserError, match=r"Another edgepress process is using .*artifacts\."):
            artifact_lock(tmp_path / "artifacts").__enter__()
        with pytest.raises(UserError, match="Another edgepress process"):
            artifact_lock(tmp_path / "artifacts").__enter__()
    with artifact_lock(tmp_path / "artifacts"), pytest.raises(UserError, match="Another edgepress process"):
        shared_lock(work).__enter__()


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
