"""Killed at any moment and run again, pressing ends with the same bytes; what was begun otherwise is never mixed in."""

from __future__ import annotations

import hashlib
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.tiny import edit_weights
from safetensors.torch import load_file, save_file

import edgepress.quantize.calibration.collector
import edgepress.quantize.pipeline
from edgepress.common.errors import UserError
from edgepress.common.progress import Progress
from edgepress.prompts.prompt import Prompt, save_prompts
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.quantize.workspace import Workspace, locked
from edgepress.recipes.schema import Recipe
from edgepress.storage.files import hash_files
from edgepress.storage.manifest import read_manifest

RECIPE = """
device: test
calibration: {count: 3, steps: 3}
"""
ROUNDING = """
quantize: {also: {w8a8: {bits: 8, group_size: channel, zero_point: false, narrow: true, activations: static}}}
"""
LITTLE = "1KB"  # of memory: samples of tokens instead of Gram matrices


def command(recipe: Path, source: Path, output: Path, *more: str) -> list[str]:
    words = ["quantize", "--recipe", str(recipe), "--model", str(source), "--output", str(output), *more]
    return [sys.executable, "-m", "edgepress", *words]


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


class KilledError(BaseException):
    """Stands for kill -9 at an exact moment; nothing in the package catches it."""


# ---------------------------------------------------------------- killed


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["6GiB", LITTLE])
def test_killed_five_times_it_ends_with_the_same_bytes(tiny: Path, recipe: Path, tmp_path: Path, memory: str) -> None:
    recipe.write_text(RECIPE + ROUNDING)
    started = time.monotonic()
    whole = run(command(recipe, tiny, tmp_path / "whole", "--memory", memory))
    length = time.monotonic() - started
    assert whole.returncode == 0, whole.stderr
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    words = command(recipe, tiny, tmp_path / "killed", "--memory", memory)
    for _ in range(5):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.3, 1.0) * length)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = run(words)
    assert last.returncode == 0, last.stderr
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole"), f"killed at moments drawn with seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("memory", [2**32, 1])
def test_killed_at_every_rename_it_ends_with_the_same_bytes(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    """Attempt n dies right after its n-th rename, over an older artifact that is to be replaced, until one survives."""
    recipe = Recipe.model_validate(yaml.safe_load(RECIPE))
    older = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"method": "rtn"})})
    quantize_pipeline(recipe, tiny, tmp_path / "whole", max_memory=memory)
    output = tmp_path / "killed"
    quantize_pipeline(older, tiny, output)
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
        patched.setattr(edgepress.quantize.calibrate, "SAVE_EVERY", -1)
        patched.setattr(Path, "replace", dying(Path.replace))
        patched.setattr(Path, "rename", dying(Path.rename))
        for attempt in range(1, 100):
            left = attempt
            try:
                quantize_pipeline(recipe, tiny, output, force=True, max_memory=memory)
                break
            except KilledError:
                vouched = read_manifest(output)
                if vouched is not None and (output / "model").exists():
                    assert {file.path: file.sha256 for file in vouched.files} == {
                        file.path: file.sha256 for file in hash_files(output / "model")
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


# ---------------------------------------------------------------- begun otherwise

SHORT: dict[str, Any] = {
    "device": "test",
    "quantize": {"method": "rtn", "components": ["text_encoder"]},
    "calibration": {"count": 1, "steps": 1},
}
SHORT_RECIPE = Recipe.model_validate(SHORT)


def at(stage: str, number: int) -> Progress:
    """A progress that kills the run when so much of a stage is done."""

    def progress(said: str, done: int, _: int) -> None:
        if (said, done) == (stage, number):
            raise KilledError

    return progress


def cut(source: Path, output: Path, recipe: Recipe = SHORT_RECIPE, **settings: Any) -> Path:
    """Leaves a run that was killed once its first unit was stored; returns its work folder."""
    with pytest.raises(KilledError):
        quantize_pipeline(recipe, source, output, at("solving", 1), **settings)
    (unit,) = output.glob(".work/*/units/*.safetensors")
    return unit.parent.parent


def spoil(work: Path) -> None:
    """Changes the unit that a run has finished, so that it shows in what is made from it."""
    (unit,) = work.glob("units/*.safetensors")
    tensors = load_file(unit)
    name = next(name for name in tensors if name.endswith("mlp.up_proj.qweight"))
    tensors[name] ^= 1
    note = Workspace(work.parent.parent, work.name).read_metadata(unit)
    save_file(tensors, unit, {"format": json.dumps(note)})


@pytest.fixture
def own(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline that a test may change."""
    shutil.copytree(tiny, tmp_path / "pipeline")
    return tmp_path / "pipeline"


def test_restart_begins_anew(tiny: Path, tmp_path: Path) -> None:
    """A unit that was changed shows that it is gone on with, and with `restart` that it is not."""
    quantize_pipeline(SHORT_RECIPE, tiny, tmp_path / "whole")
    spoil(cut(tiny, tmp_path / "restarted"))
    quantize_pipeline(SHORT_RECIPE, tiny, tmp_path / "restarted", restart=True)
    assert digest(tmp_path / "restarted") == digest(tmp_path / "whole")
    spoil(cut(tiny, tmp_path / "resumed"))
    quantize_pipeline(SHORT_RECIPE, tiny, tmp_path / "resumed")
    assert digest(tmp_path / "resumed") != digest(tmp_path / "whole")


def test_restart_presses_a_finished_artifact_again(tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    quantize_pipeline(SHORT_RECIPE, tiny, output)
    before = digest(output)
    assert not quantize_pipeline(SHORT_RECIPE, tiny, output).created
    assert quantize_pipeline(SHORT_RECIPE, tiny, output, restart=True).created
    assert digest(output) == before
    assert not list(output.glob(".work/*/"))


def test_restart_does_not_replace_another_artifact(tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    quantize_pipeline(SHORT_RECIPE, tiny, output)
    other = SHORT_RECIPE.model_copy(update={"dtype": "bfloat16"})
    with pytest.raises(UserError, match="--force"):
        quantize_pipeline(other, tiny, output, restart=True)


def change_recipe(_: Path, recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"embeddings": "int8"})})


def change_prompts(source: Path, recipe: Recipe) -> Recipe:
    prompts = [Prompt(id="p0", prompt="a dog", language="en")]
    save_prompts(prompts, source.parent / "prompts.jsonl")
    return recipe


def change_weights(source: Path, recipe: Recipe) -> Recipe:
    with edit_weights(source / "text_encoder") as tensors:
        tensors["layers.0.mlp.up_proj.weight"][0] *= 1.5
    return recipe


def change_what_is_only_copied(source: Path, recipe: Recipe) -> Recipe:
    (source / "notes.txt").write_text("other notes")
    return recipe


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_recipe, "recipe"),
        (change_prompts, "prompt set"),
        (change_weights, "model"),
        (change_what_is_only_copied, "model"),
    ],
)
def test_what_was_begun_from_something_else_is_named_and_not_used(
    own: Path, tmp_path: Path, change: Callable[[Path, Recipe], Recipe], said: str
) -> None:
    """What would be gone on with is spoilt, so that a mixture would show."""
    prompts, output = tmp_path / "prompts.jsonl", tmp_path / "artifact"
    save_prompts([Prompt(id="p0", prompt="a cat", language="en")], prompts)
    (own / "notes.txt").write_text("notes")
    calibration = SHORT_RECIPE.calibration.model_copy(update={"prompts": str(prompts)})
    recipe = SHORT_RECIPE.model_copy(update={"calibration": calibration})
    work = cut(own, output, recipe)
    spoil(work)
    recipe = change(own, recipe)
    sentences: list[str] = []
    quantize_pipeline(recipe, own, output, tell=sentences.append)
    why = f"is not used, and goes when this is finished: it was begun with another {said}."
    assert sentences == [f"Unfinished work in {work} {why}"]
    quantize_pipeline(recipe, own, tmp_path / "fresh", tell=lambda _: pytest.fail("nothing was begun here"))
    assert digest(output) == digest(tmp_path / "fresh")


def test_another_version_of_the_code_and_another_kind_of_statistics_are_named(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(tiny, tmp_path / "artifact")
    monkeypatch.setattr(edgepress.quantize.press, "_algorithm", lambda: "another")
    sentences: list[str] = []
    quantize_pipeline(SHORT_RECIPE, tiny, tmp_path / "artifact", max_memory=1, tell=sentences.append)
    (unused, memory) = sentences
    assert unused.endswith("it was begun with another version of edgepress, memory.")
    assert "more than --memory" in memory


def test_unfinished_work_of_the_same_is_gone_on_with_in_silence(tiny: Path, tmp_path: Path) -> None:
    """More memory or less is the same where the statistics are of the same kind."""
    work = cut(tiny, tmp_path / "artifact")
    quantize_pipeline(
        SHORT_RECIPE, tiny, tmp_path / "artifact", max_memory=2**33, tell=lambda _: pytest.fail("nothing has changed")
    )
    assert not work.exists()


def test_another_process_on_the_same_output_is_refused(tiny: Path, tmp_path: Path) -> None:
    with (
        locked(Workspace(tmp_path / "artifact", "another")),
        pytest.raises(UserError, match="Another edgepress process is using"),
    ):
        quantize_pipeline(SHORT_RECIPE, tiny, tmp_path / "artifact")
    quantize_pipeline(SHORT_RECIPE, tiny, tmp_path / "artifact")


# ---------------------------------------------------------------- what the machine and the user do


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
    with locked(Workspace(tmp_path / "artifact", "another")):
        done = run(command(recipe, tiny, tmp_path / "artifact"))
    assert done.returncode == 2
    assert "Another edgepress process is using" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("waited_for", ["", "*/statistics.safetensors", "*/units/*.safetensors"])
def test_control_c_says_that_it_can_go_on_and_it_does(
    tiny: Path, recipe: Path, tmp_path: Path, waited_for: str
) -> None:
    output = tmp_path / "artifact"
    words = command(recipe, tiny, output)
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what a shell starts with & would not hear it
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    while not any((output / ".work").glob(waited_for or "*")) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate()
    assert process.returncode == 2, errors
    assert printed == ""
    (sentence,) = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert sentence == "Error: Interrupted; what is finished is kept, and the same command goes on from there."
    assert errors.splitlines()[-1] == sentence
    assert "Traceback" not in errors
    assert not (output / "manifest.json").exists()
    kept = {path for path in output.glob(".work/*/*") if path.is_file()}
    assert kept or not waited_for
    last = run(words)
    assert last.returncode == 0, last.stderr
    assert "is not used" not in last.stderr
    quantize_pipeline(Recipe.model_validate(yaml.safe_load(RECIPE)), tiny, tmp_path / "whole")
    assert digest(output) == digest(tmp_path / "whole")
