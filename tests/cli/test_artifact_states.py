"""Every command that reads an artifact, in every state that an artifact can be in.

Each ends at once: in success, where the work begins, or in one sentence, and then no file has changed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.command_endings import find_ending_problems
from helpers.file_states import link, list_files
from helpers.published_artifact import write_published_artifact

from edgepress.cli.main import main
from edgepress.common.errors import escape_controls

pytestmark = pytest.mark.usefixtures("no_work")

ARTIFACT = "artifact"
COMMANDS: Sequence[Sequence[str]] = (
    ("info", ARTIFACT),
    ("verify", ARTIFACT, "--no-run"),
    ("describe", ARTIFACT),
    ("diff", ARTIFACT, "intact"),
    ("clean", ARTIFACT),
    ("kit", ARTIFACT),
    ("generate", ARTIFACT, "--prompt", "a cat", "--output", "a.png", "--steps", "1"),
    ("bench", ARTIFACT, "--images", "1"),
    ("serve", ARTIFACT, "--allow-root", "--port", "0", "--state", "state"),
    ("sign", ARTIFACT, "--key", "absent"),
    ("recipes", "show", ARTIFACT),
    ("evaluate", "report", f"{ARTIFACT}/evaluation/results.json"),
)
TOP_NAMES = ("model", "onnx", "manifest.json", "SHA256SUMS", "onnx/pipeline.json", "onnx/tokenizer", "model/vae")


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_instead(path: Path) -> None:
    remove(path)
    path.write_text("mine")


def make_instead(path: Path) -> None:
    remove(path)
    path.mkdir()


def lead_nowhere(path: Path) -> None:
    remove(path)
    path.symlink_to("nowhere")


def lead_to_itself(path: Path) -> None:
    remove(path)
    path.symlink_to(path.name)


def put_pipe(path: Path) -> None:
    remove(path)
    os.mkfifo(path)


def link_elsewhere(path: Path) -> None:
    moved = path.rename(path.parents[0 if path.name == ARTIFACT else 1] / f"moved-{path.name}")
    path.symlink_to(moved)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()  # it is a link to the file of the fixture
    path.write_bytes(content[: len(content) // 2])


def make_newer(path: Path) -> None:
    content = json.loads(path.read_text())
    path.unlink()
    path.write_text(json.dumps(content | {"schema_version": 99}))


def leave_work_only(path: Path) -> None:
    make_instead(path)
    (path / ".work" / "0123456789abcdef").mkdir(parents=True)


def add_file(path: Path) -> None:
    (path / "notes.txt").write_text("mine")


CHANGES: Mapping[str, Callable[[Path], None]] = {
    "removed": remove,
    "a file": write_instead,
    "an empty folder": make_instead,
    "a link to nothing": lead_nowhere,
    "a link to itself": lead_to_itself,
    "a pipe": put_pipe,
}
STATES: Mapping[str, tuple[str, Callable[[Path], None]]] = {
    **{f"{name} {change}": (name, CHANGES[change]) for name in TOP_NAMES for change in CHANGES},
    "only unfinished work": ("", leave_work_only),
    "an empty artifact": ("", make_instead),
    "a link": ("", link_elsewhere),
    "model a link": ("model", link_elsewhere),
    "onnx a link": ("onnx", link_elsewhere),
    "a weight truncated": ("onnx/caption-00001-of-00001.safetensors", truncate),
    "a graph truncated": ("onnx/caption.onnx", truncate),
    "the manifest truncated": ("manifest.json", truncate),
    "pipeline.json truncated": ("onnx/pipeline.json", truncate),
    "a newer manifest": ("manifest.json", make_newer),
    "a newer pipeline.json": ("onnx/pipeline.json", make_newer),
    "a file added": ("model", add_file),
    "work a file": (".work", write_instead),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an artifact twice. Tests must not change it."""
    folder = tmp_path_factory.mktemp("places")
    write_published_artifact(folder / ARTIFACT)
    shutil.copytree(folder / ARTIFACT, folder / "intact", copy_function=link)
    return folder


def run_all(places: Path, folder: Path, change: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Runs all commands on a changed artifact; yields what was wrong."""
    state: dict[str, tuple[int, int, int]] = {}
    for arguments in COMMANDS:
        if not state:
            monkeypatch.chdir(places)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(places, folder, symlinks=True, copy_function=link)
            monkeypatch.chdir(folder)
            change()
            state = list_files(folder)
        result = CliRunner().invoke(main, arguments, prog_name="edgepress")
        after = list_files(folder)
        problems = list(find_ending_problems(arguments[0], result))
        if result.exit_code == 2 and after != state:
            problems.append("files changed")
        message = (result.stderr.splitlines() or [""])[-1]
        yield from (f"{' '.join(arguments[:2])}: {problem}: {escape_controls(message)}" for problem in problems)
        state = state if after == state else {}


@pytest.mark.parametrize("name", STATES)
def test_every_command_in_every_state(name: str, places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, change = STATES[name]
    folder = tmp_path / "run"
    problems = run_all(places, folder, lambda: change(folder / ARTIFACT / path), monkeypatch)
    assert "\n".join(problems) == ""


def test_every_command_while_another_uses_the_artifact(
    places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def lock() -> None:
        (folder / ARTIFACT / ".work").mkdir()
        stream = (folder / ARTIFACT / ".work" / "lock").open("ab")
        fcntl.flock(stream, fcntl.LOCK_EX)
        streams.append(stream)

    streams: list[object] = []
    assert "\n".join(run_all(places, folder, lock, monkeypatch)) == ""


@pytest.mark.parametrize("name", ["with a space", "new\nline", "quote'\"", "-dash", "émigré"])
def test_every_command_on_an_artifact_of_any_name(
    name: str, places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(places, tmp_path / name, copy_function=link)
    monkeypatch.chdir(tmp_path / name)
    for arguments in COMMANDS[:5]:
        renamed = [str(tmp_path / name / word) if word in (ARTIFACT, "intact") else word for word in arguments]
        result = CliRunner().invoke(main, renamed, prog_name="edgepress")
        assert list(find_ending_problems(arguments[0], result)) == []
        assert result.exit_code != 2, result.stderr
