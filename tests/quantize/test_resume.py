"""Killed at any moment and run again, pressing ends with the same bytes; errors leave nothing half-written."""

from __future__ import annotations

import hashlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from edgepress.artifact import describe, read_manifest
from edgepress.quantize.press import press
from edgepress.recipe import Recipe

RECIPE = """
device: test
calibration: {count: 3, steps: 3}
"""


def command(recipe: Path, source: Path, output: Path) -> list[str]:
    words = ["quantize", "--recipe", str(recipe), "--model", str(source), "--output", str(output)]
    return [sys.executable, "-m", "edgepress.cli", *words]


def run(words: list[str], before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, preexec_fn=before)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in (folder / "model").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "test.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.slow
def test_killed_five_times_it_ends_with_the_same_bytes(tiny: Path, recipe: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    whole = run(command(recipe, tiny, tmp_path / "whole"))
    length = time.monotonic() - started
    assert whole.returncode == 0, whole.stderr
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    words = command(recipe, tiny, tmp_path / "killed")
    for _ in range(5):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.3, 1.0) * length)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = run(words)
    assert last.returncode == 0, last.stderr
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole"), f"killed at moments drawn with seed {seed}"


class KilledError(BaseException):
    """Stands for kill -9 at an exact moment; nothing in the package catches it."""


@pytest.mark.slow
def test_killed_at_every_rename_it_ends_with_the_same_bytes(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempt n dies right after its n-th rename, over an older artifact that is to be replaced, until one survives."""
    recipe = Recipe.model_validate(yaml.safe_load(RECIPE))
    older = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"method": "rtn"})})
    press(recipe, tiny, tmp_path / "whole")
    output = tmp_path / "killed"
    press(older, tiny, output)
    left = 0

    def dying(rename: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def renamed(self: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            done = rename(self, target)
            if left == 0:
                raise KilledError
            return done

        return renamed

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", dying(Path.replace))
        patched.setattr(Path, "rename", dying(Path.rename))
        for attempt in range(1, 100):
            left = attempt
            try:
                press(recipe, tiny, output, force=True)
                break
            except KilledError:
                vouched = read_manifest(output)
                if vouched is not None and (output / "model").exists():
                    assert {file.path: file.sha256 for file in vouched.files} == {
                        file.path: file.sha256 for file in describe(output / "model")
                    }, f"after {attempt} renames the manifest speaks of another model"
    assert attempt > 5
    assert digest(output) == digest(tmp_path / "whole")
    assert read_manifest(output) == read_manifest(tmp_path / "whole")
    assert not list(output.glob(".work/*/"))


@pytest.mark.slow
def test_finished_units_are_not_solved_again(tiny: Path, recipe: Path, tmp_path: Path) -> None:
    """Killed as soon as the first block is stored: that file is the same one, untouched, until the end."""
    output = tmp_path / "artifact"
    words = command(recipe, tiny, output)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    unit = None
    while unit is None and process.poll() is None:
        unit = next(iter(output.glob(".work/*/units/*.safetensors")), None)
        time.sleep(0.002)
    process.kill()
    process.wait()
    if unit is None or not unit.exists():
        pytest.skip("the run was over before it could be killed")
    made = unit.stat().st_mtime_ns
    seen = set()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if unit.exists():
            seen.add(unit.stat().st_mtime_ns)
        time.sleep(0.002)
    assert process.returncode == 0
    assert seen <= {made}


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_nothing_is_published(tiny: Path, recipe: Path, tmp_path: Path) -> None:
    """A limit on file size stands for the full disk: the kernel refuses the write in the same way."""
    output = tmp_path / "artifact"
    done = run(command(recipe, tiny, output), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)))
    assert done.returncode == 2, done.stderr
    assert "no room left" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (output / "model").exists()
    assert not (output / "manifest.json").exists()


@pytest.mark.slow
def test_a_disk_that_fills_up_while_copying_is_one_sentence(recipe: Path, tiny: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "pipeline", tmp_path / "artifact"
    shutil.copytree(tiny, source)
    (source / "teaser.png").write_bytes(bytes(60_000_000))
    done = run(
        command(recipe, source, output), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000_000, 50_000_000))
    )
    assert done.returncode == 2, done.stderr
    assert "no room left" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (output / "model").exists()


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_one_sentence(tiny: Path, recipe: Path) -> None:
    done = run(command(recipe, tiny, Path("/sys/kernel/edgepress")))
    assert done.returncode == 2, done.stderr
    assert "not allowed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_second_process_on_the_same_output_is_refused(tiny: Path, recipe: Path, tmp_path: Path) -> None:
    from edgepress.quantize.work import Work, locked

    with locked(Work(tmp_path / "artifact", "another")):
        done = run(command(recipe, tiny, tmp_path / "artifact"))
    assert done.returncode == 2
    assert "Another edgepress works on" in done.stderr


@pytest.mark.slow
def test_control_c_says_that_it_can_go_on(tiny: Path, recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    process = subprocess.Popen(
        command(recipe, tiny, output), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while not (output / ".work").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 2
    assert "goes on from there" in errors
    assert "Traceback" not in errors
