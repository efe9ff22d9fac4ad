"""`clean`: what runs leave behind goes, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

import edgepress
from edgepress.cli.main import main
from edgepress.storage.publishing import artifact_lock, shared_lock

KEY = "0123456789abcdef"
PUBLISHED = ("manifest.json", "model/w", "onnx/pipeline.json", "rknn/a.rknn", "evaluation/results.json", "bench/b.json")
NUMBER = "0123456789abcdef" * 2  # that edgepress gives to folders
WORK = (f".work/{KEY}/blocks/b", f".work/stage-onnx-{NUMBER}/g", f".work/replaced-model-{NUMBER}/w", ".work/lock")
EARLIER = (".work/export-onnx/g", ".work/toolkit/log", ".work/replaced-model/w")  # of earlier releases
CACHES = (".work/images/k/0.png", "evaluation/.work/scores.sqlite")  # where artifacts/ could not be written to
MINE = ("mine", "export-notes", "replaced-notes", "removed-x", f"replaced-notes-{NUMBER}")
SHARED = ("artifacts/.work/images/k/0.png", "artifacts/.work/scores.sqlite")
USER = ("cache/edgepress/graphs/a.graph", "state/edgepress/tracebacks/t.txt")


def write(folder: Path, *names: str) -> None:
    """Writes files of a hundred bytes each; locks are empty."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(0 if name.endswith("/lock") else 100))


def list_files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with artifacts, user folders and everything that runs leave."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    for name in ("pi5", "orin"):
        write(tmp_path / "artifacts" / name, *PUBLISHED, *WORK, *CACHES)
    write(tmp_path, *SHARED, *USER, "cache/another/program", *(f"artifacts/pi5/.work/{name}/notes" for name in MINE))
    return tmp_path


def test_all(home: Path) -> None:
    result = edgepress.clean()
    assert list_files(home) == {
        *(f"artifacts/{name}/{file}" for name in ("pi5", "orin") for file in PUBLISHED),
        "cache/another/program",
        *(f"artifacts/pi5/.work/{name}/notes" for name in MINE),
    }
    assert not (home / "artifacts" / "orin" / ".work").exists()
    assert result.bytes_by_kind == {
        "unfinished work": 600,
        "cached images and scores": 600,
        "user cache": 100,
        "tracebacks": 100,
    }
    assert "Removed" in str(result)
    assert str(edgepress.clean()) == "There is nothing to remove."


def test_one_artifact(home: Path) -> None:
    assert edgepress.clean("artifacts/orin").bytes == 500
    assert list_files(home / "artifacts" / "orin") == set(PUBLISHED)
    assert {f"artifacts/pi5/{file}" for file in WORK} | {*SHARED, *USER} <= list_files(home)


def test_a_dry_run_removes_nothing(home: Path) -> None:
    before = list_files(home)
    result = CliRunner().invoke(main, ["clean", "--dry-run", "--json"])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["bytes"] == 1400
    assert content["dry_run"]
    assert f"artifacts/pi5/.work/stage-onnx-{NUMBER}" in content["paths"]
    assert list_files(home) == before


def test_a_folder_whose_replacement_was_interrupted_is_put_back(home: Path) -> None:
    artifact = home / "artifacts" / "orin"
    (artifact / "model" / "w").unlink()
    (artifact / "model").rmdir()
    edgepress.clean(artifact)
    assert list_files(artifact) == set(PUBLISHED)


def test_an_artifact_in_use_is_left_alone(home: Path) -> None:
    artifact = home / "artifacts" / "orin"
    with artifact_lock(artifact):
        with pytest.raises(edgepress.UserError, match="Another edgepress process is using"):
            edgepress.clean(artifact)
        result = CliRunner().invoke(main, ["clean"])
    assert result.exit_code == 0
    assert "Warning: Another edgepress process is using artifacts/orin" in result.stderr
    assert {f".work/{KEY}/blocks/b", *PUBLISHED} <= list_files(artifact)


@pytest.mark.parametrize("name", [".work/images/photo.png", ".work/toolkit/t", "evaluation/.work/images/photo.png"])
def test_a_folder_of_another_program_is_refused(home: Path, name: str) -> None:
    write(home / "project", name, ".work/removed-x/y", "model/weights")
    before = list_files(home)
    result = CliRunner().invoke(main, ["clean", str(home / "project")])
    assert result.exit_code == 2
    assert "project is no artifact" in result.stderr
    assert list_files(home) == before
    (home / "project").rename(home / "artifacts" / "project")
    edgepress.clean()
    assert list_files(home / "artifacts" / "project") == {name, ".work/removed-x/y", "model/weights"}


@pytest.mark.parametrize(
    "name",
    [f"images/{KEY * 2}/0.png", "scores.sqlite", f"{KEY}/blocks/b", "export-onnx/g", f"stage-rknn-{NUMBER}/g", "lock"],
)
@pytest.mark.parametrize("place", ["artifacts", "artifacts/new", "artifacts/new/evaluation"])
def test_what_a_killed_run_left_shows_that_it_was_edgepress(home: Path, place: str, name: str) -> None:
    shutil.rmtree(home / "artifacts")
    write(home / place, f".work/{name}")
    edgepress.clean(home / place)
    assert not (home / place / ".work").exists()


def test_what_earlier_releases_left_is_removed_but_for_a_backup_of_what_is_missing(home: Path) -> None:
    artifact = home / "artifacts" / "orin"
    write(artifact, *EARLIER, ".work/replaced-onnx/w")
    shutil.rmtree(artifact / "onnx")
    edgepress.clean(artifact)
    assert list_files(artifact) == {*PUBLISHED, ".work/replaced-onnx/w"} - {"onnx/pipeline.json"}


@pytest.mark.parametrize("work", ["artifacts/.work", "artifacts/orin/evaluation/.work"])
def test_images_that_an_evaluation_is_using_are_left_alone(home: Path, work: str) -> None:
    before = list_files(home / work)
    with shared_lock(home / work):
        result = CliRunner().invoke(main, ["clean"])
        if work != "artifacts/.work":
            with pytest.raises(
                edgepress.UserError, match="Another edgepress process is using artifacts/orin/evaluation"
            ):
                edgepress.clean("artifacts/orin")
    assert result.exit_code == 0
    assert f"Warning: Another edgepress process is using {Path(work).parent}. Wait" in result.stderr
    assert before <= list_files(home / work)
    assert {f"artifacts/orin/{file}" for file in PUBLISHED} <= list_files(home)


def test_a_missing_artifact(home: Path) -> None:
    with pytest.raises(edgepress.UserError, match="nowhere does not exist"):
        edgepress.clean(home / "nowhere")
