"""A quantization that is killed at any moment resumes to the same bytes and never mixes in work of other inputs."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.commands import Command, run_command
from helpers.tiny import edit_weights
from safetensors.torch import load_file, save_file

from edgepress.common.errors import UserError
from edgepress.common.progress import Progress
from edgepress.prompts.prompt import Prompt, save_prompts
from edgepress.quantize import job as job_module
from edgepress.quantize import run as run_module
from edgepress.quantize.calibration import collector
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.quantize.workspace import Workspace, WorkspaceState, read_metadata
from edgepress.recipes.schema import Recipe
from edgepress.storage.files import hash_files
from edgepress.storage.layout import Artifact
from edgepress.storage.manifest import read_manifest

RECIPE = """
device: test
quantize: {method: gptq}
calibration: {count: 2, steps: 2}
"""
W8A8 = """
device: test
calibration: {count: 2, steps: 2}
quantize:
  method: gptq
  extra_schemes:
    w8a8: {bits: 8, group_size: channel, symmetric: true, narrow_range: true, activations: static}
"""
QUICK = """
device: test
quantize: {method: rtn, components: [text_encoder]}
calibration: {count: 1, steps: 1}
"""
MEMORY = ("6GiB", "1KB")  # H matrices in memory, or mapped from disk


def make_command(recipe: Path, source: Path, output: Path, *options: str) -> list[str | Path]:
    return ["quantize", "--recipe", recipe, "--model", source, "--output", output, *options]


def hash_model(folder: Path) -> dict[str, str]:
    files = sorted(path for path in (folder / "model").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_layers(folder: Path) -> list[dict[str, Any]]:
    """The errors of all layers, which depend on all that calibration gathered."""
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest.layers


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "test.yaml"
    path.write_text(RECIPE)
    return path


class KilledError(BaseException):
    """Stands for kill -9 at an exact moment; nothing in the package catches it."""


# ---------------------------------------------------------------- killed


@pytest.mark.slow
def test_killed_five_times_it_ends_with_the_same_bytes(lean: Path, recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(W8A8)
    started = time.monotonic()
    reference = run_command(*make_command(recipe, lean, tmp_path / "whole"))
    length = time.monotonic() - started
    assert reference.returncode == 0, reference.stderr
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    for attempt in range(5):
        command = make_command(recipe, lean, tmp_path / "killed", "--max-memory", MEMORY[attempt % 2])
        process = Command(*command)
        time.sleep(rng.uniform(0.0, 1.0) * length)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = run_command(*command)
    assert last.returncode == 0, last.stderr
    killed, whole = hash_model(tmp_path / "killed"), hash_model(tmp_path / "whole")
    assert killed == whole, f"killed at moments drawn with seed {seed}"
    assert read_layers(tmp_path / "killed") == read_layers(tmp_path / "whole"), f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("hessian_bytes", [collector.HESSIAN_BYTES, 0])
def test_killed_at_every_rename_it_ends_with_the_same_bytes(
    lean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hessian_bytes: int
) -> None:
    """Attempt n dies right after its n-th rename, over an older artifact that is to be replaced, until one survives."""
    monkeypatch.setattr(collector, "HESSIAN_BYTES", hessian_bytes)
    recipe = Recipe.model_validate(SHORT | {"quantize": {"method": "rtn"}})
    quantize_pipeline(recipe, lean, tmp_path / "whole")
    output = tmp_path / "killed"
    quantize_pipeline(SHORT_RECIPE, lean, output)
    left = 0

    def die_after(rename: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def rename_and_count(self: Path, target: Path) -> Path:
            nonlocal left
            left -= 1
            result = rename(self, target)
            if left == 0:
                raise KilledError
            return result

        return rename_and_count

    with monkeypatch.context() as patched:
        patched.setattr(collector, "SAVE_INTERVAL_S", -1)
        patched.setattr(Path, "replace", die_after(Path.replace))
        patched.setattr(Path, "rename", die_after(Path.rename))
        for attempt in range(1, 100):
            left = attempt
            try:
                quantize_pipeline(recipe, lean, output, force=True)
                break
            except KilledError:
                manifest = read_manifest(output)
                if manifest is not None and (output / "model").exists():
                    assert {file.path: file.sha256 for file in manifest.files} == {
                        file.path: file.sha256 for file in hash_files(output / "model")
                    }, f"after {attempt} renames the manifest describes another model"
    assert attempt > 5
    assert hash_model(output) == hash_model(tmp_path / "whole")
    assert read_manifest(output) == read_manifest(tmp_path / "whole")
    assert not list(output.glob(".work/*/"))


@pytest.mark.slow
def test_finished_blocks_are_not_quantized_again(lean: Path, recipe: Path, tmp_path: Path) -> None:
    """Killed as soon as the first block is stored: that file is the same one, untouched, until the end."""
    output = tmp_path / "artifact"
    recipe.write_text(QUICK.replace("rtn", "best"))
    command = make_command(recipe, lean, output)
    process = Command(*command)
    file = None
    while file is None and process.poll() is None:
        file = next(iter(output.glob(".work/*/blocks/*.safetensors")), None)
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if file is None or not file.exists():
        pytest.skip("the run was over before it could be killed")
    expected = file.stat().st_mtime_ns
    times = set()
    process = Command(*command)
    while process.poll() is None:
        if file.exists():
            times.add(file.stat().st_mtime_ns)
        time.sleep(0.002)
    assert process.wait().returncode == 0
    assert times <= {expected}


# ---------------------------------------------------------------- other inputs

SHORT: dict[str, Any] = {
    "device": "test",
    "quantize": {"method": "rtn", "components": ["text_encoder"]},
    "calibration": {"count": 1, "steps": 1},
}
SHORT_RECIPE = Recipe.model_validate(SHORT)


def kill_at(stage: str, number: int) -> Progress:
    """A progress that kills the run when so much of a stage is done."""

    def progress(current: str, done: int, _: int) -> None:
        if (current, done) == (stage, number):
            raise KilledError

    return progress


def start_and_kill(source: Path, output: Path, recipe: Recipe = SHORT_RECIPE, **settings: Any) -> Path:
    """Kills a run once its first block is stored, and returns its workspace."""
    with pytest.raises(KilledError):
        quantize_pipeline(recipe, source, output, progress=kill_at("quantizing", 1), **settings)
    (file,) = output.glob(".work/*/blocks/*.safetensors")
    return file.parent.parent


def corrupt(workspace: Path) -> None:
    """Changes the block that a run has finished, so that using it shows in the result."""
    (file,) = workspace.glob("blocks/*.safetensors")
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("mlp.up_proj.qweight"))
    tensors[name] ^= 1
    save_file(tensors, file, {"format": json.dumps(read_metadata(file))})


@pytest.fixture
def pipeline(lean: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline that a test may change."""
    shutil.copytree(lean, tmp_path / "pipeline")
    return tmp_path / "pipeline"


def test_restart_starts_over(lean: Path, tmp_path: Path) -> None:
    """A changed block shows that a run resumes, and with `restart` that it does not."""
    quantize_pipeline(SHORT_RECIPE, lean, tmp_path / "whole")
    corrupt(start_and_kill(lean, tmp_path / "restarted"))
    quantize_pipeline(SHORT_RECIPE, lean, tmp_path / "restarted", restart=True)
    assert hash_model(tmp_path / "restarted") == hash_model(tmp_path / "whole")
    corrupt(start_and_kill(lean, tmp_path / "resumed"))
    quantize_pipeline(SHORT_RECIPE, lean, tmp_path / "resumed")
    assert hash_model(tmp_path / "resumed") != hash_model(tmp_path / "whole")


def test_restart_repeats_a_finished_artifact(lean: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    quantize_pipeline(SHORT_RECIPE, lean, output)
    before = hash_model(output)
    assert not quantize_pipeline(SHORT_RECIPE, lean, output).created
    assert quantize_pipeline(SHORT_RECIPE, lean, output, restart=True).created
    assert hash_model(output) == before
    assert not list(output.glob(".work/*/"))


def test_restart_does_not_replace_another_artifact(lean: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    quantize_pipeline(SHORT_RECIPE, lean, output)
    changed = SHORT_RECIPE.model_copy(update={"dtype": "bfloat16"})
    with pytest.raises(UserError, match="--force"):
        quantize_pipeline(changed, lean, output, restart=True)


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


def change_copied_file(source: Path, recipe: Recipe) -> Recipe:
    (source / "notes.txt").write_text("other notes")
    return recipe


@pytest.mark.parametrize(
    ("change", "topic"),
    [
        (change_recipe, "recipe"),
        (change_prompts, "prompt set"),
        (change_weights, "model"),
        (change_copied_file, "model"),
    ],
)
def test_work_of_other_inputs_is_reported_and_not_used(
    pipeline: Path,
    tmp_path: Path,
    change: Callable[[Path, Recipe], Recipe],
    topic: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The unfinished work is corrupt, so that using it would show."""
    prompts, output = tmp_path / "prompts.jsonl", tmp_path / "artifact"
    save_prompts([Prompt(id="p0", prompt="a cat", language="en")], prompts)
    (pipeline / "notes.txt").write_text("notes")
    calibration = SHORT_RECIPE.calibration.model_copy(update={"prompts": str(prompts)})
    recipe = SHORT_RECIPE.model_copy(update={"calibration": calibration})
    workspace = start_and_kill(pipeline, output, recipe)
    corrupt(workspace)
    recipe = change(pipeline, recipe)
    quantize_pipeline(recipe, pipeline, output)
    reason = f"cannot be resumed, because these inputs have changed: {topic}. It is deleted when this run finishes."
    assert caplog.messages == [f"Unfinished work in {workspace} {reason}"]
    caplog.clear()
    quantize_pipeline(recipe, pipeline, tmp_path / "fresh")
    assert not caplog.messages
    assert hash_model(output) == hash_model(tmp_path / "fresh")


def test_another_version_of_the_code_is_reported(
    lean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start_and_kill(lean, tmp_path / "artifact")
    monkeypatch.setattr(job_module, "code_fingerprint", lambda _: "another")
    quantize_pipeline(SHORT_RECIPE, lean, tmp_path / "artifact", max_memory=2**27)
    stale, memory = caplog.messages
    assert "these inputs have changed: version of edgepress." in stale
    assert "more than the limit of 0.125 GiB (--max-memory)" in memory
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_work_of_the_same_inputs_is_resumed_without_a_warning(
    lean: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = start_and_kill(lean, tmp_path / "artifact")
    quantize_pipeline(SHORT_RECIPE, lean, tmp_path / "artifact", max_memory=2**33)
    assert not caplog.messages
    assert not workspace.exists()


SAME_RESULT: dict[str, dict[str, Any]] = {
    "other sections": {
        "description": "another",
        "device": "another",
        "evaluation": {"count": 3, "gates": {"psnr_min": 20}},
        "export": {"precision": "fp16"},
        "rknn": {"memory": 4},
    },
    "other words": {
        "dtype": "float32",
        "quantize": SHORT["quantize"] | {"method": "best", "steps": []},
        "calibration": SHORT["calibration"] | {"size": [64, 64]},
    },
}


@pytest.mark.parametrize("change", SAME_RESULT)
def test_settings_that_do_not_change_the_result_do_not_throw_the_calibration_away(
    lean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The pipeline that calibration runs is not loaded again."""
    workspace = start_and_kill(lean, tmp_path / "killed", max_memory=2**33)
    layers = read_metadata(next(workspace.glob("blocks/*.safetensors")))["layers"]["model"]
    monkeypatch.setattr(collector, "load_streaming_pipeline", lambda *_: pytest.fail("calibrated again"))
    recipe = Recipe.model_validate(SHORT | SAME_RESULT[change])
    manifest = quantize_pipeline(recipe, lean, tmp_path / "killed", max_memory=1).manifest
    assert manifest.layers[: len(layers)] == layers
    assert not workspace.exists()


def test_the_memory_does_not_change_the_bytes(lean: Path, tmp_path: Path) -> None:
    """Of H matrices in memory, mapped ones, and a calibration that begins with one and goes on with the other."""
    recipe = Recipe.model_validate(SHORT | {"quantize": {"method": "gptq", "components": ["text_encoder"]}})
    start_and_kill(lean, tmp_path / "both", recipe, max_memory=2**33)
    for name, max_memory in (("both", 1), ("little", 1), ("much", 2**33)):
        quantize_pipeline(recipe, lean, tmp_path / name, max_memory=max_memory)
    assert hash_model(tmp_path / "both") == hash_model(tmp_path / "little") == hash_model(tmp_path / "much")


def test_a_workspace_reports_what_an_earlier_run_left(lean: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    folder = start_and_kill(lean, output)
    inputs = json.loads((folder / "inputs.json").read_text("utf-8"))
    assert Workspace.open(output, inputs).state is WorkspaceState.RESUMABLE
    assert Workspace.open(output, inputs, restart=True).state is WorkspaceState.NEW
    assert Workspace.open(output, inputs | {"model": []}).state is WorkspaceState.NEW
    manifest = quantize_pipeline(SHORT_RECIPE, lean, output).manifest
    workspace = Workspace.open(output, inputs)
    assert (workspace.state, workspace.published) == (WorkspaceState.DONE, manifest)
    assert Workspace.open(output, inputs, restart=True).state is WorkspaceState.NEW
    assert Workspace.open(output, inputs, force=True).state is WorkspaceState.NEW
    with pytest.raises(UserError, match="--force"):
        Workspace.open(output, inputs | {"model": []})


def test_a_run_that_was_killed_after_publishing_is_finished(
    lean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written last: the times of the stages, and where the model is."""
    artifact = Artifact(tmp_path / "artifact")

    def kill(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched, suppress(KilledError):
        patched.setattr(run_module, "_retire_stale_exports", kill)
        quantize_pipeline(SHORT_RECIPE, lean, artifact.path)
    assert artifact.manifest.exists()
    assert not artifact.timings.exists()
    assert not quantize_pipeline(SHORT_RECIPE, lean, artifact.path).created
    assert artifact.timings.exists()
    assert artifact.local.exists()
    assert not artifact.work.exists()


def test_a_lock_that_could_not_be_removed_goes_with_the_next_run(lean: Path, tmp_path: Path) -> None:
    artifact = Artifact(tmp_path / "artifact")
    quantize_pipeline(SHORT_RECIPE, lean, artifact.path)
    artifact.work.mkdir()
    (artifact.work / "lock").touch()
    assert not quantize_pipeline(SHORT_RECIPE, lean, artifact.path).created
    assert not artifact.work.exists()


def test_another_process_on_the_same_output_is_rejected(lean: Path, tmp_path: Path) -> None:
    with (
        Workspace(tmp_path / "artifact", "another").lock(),
        pytest.raises(UserError, match="Another edgepress process is using"),
    ):
        quantize_pipeline(SHORT_RECIPE, lean, tmp_path / "artifact")
    quantize_pipeline(SHORT_RECIPE, lean, tmp_path / "artifact")


def test_a_run_that_finished_nothing_leaves_nothing(tmp_path: Path) -> None:
    with suppress(KilledError), Workspace(tmp_path / "artifact", "key", {"model": []}).lock():
        raise KilledError
    assert list(tmp_path.iterdir()) == []


def test_only_workspaces_are_removed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path, "0123456789abcdef", {"model": []})
    with workspace.lock():
        for name in ("mydir/notes.txt", "fedcba9876543210/blocks/0", "older/made-from.json"):
            (tmp_path / ".work" / name).parent.mkdir(parents=True)
            (tmp_path / ".work" / name).touch()
        workspace.clear()
    assert [path.name for path in (tmp_path / ".work").iterdir()] == ["mydir"]
    assert (tmp_path / ".work" / "mydir" / "notes.txt").exists()


def test_a_run_that_finished_a_block_leaves_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "artifact", "key", {"model": []})
    with suppress(KilledError), workspace.lock():
        workspace.block_file("0").touch()
        raise KilledError
    assert workspace.block_file("0").exists()
    assert workspace.inputs_file.exists()


def test_half_written_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    """Those of edgepress, and those that safetensors writes beside a file."""
    workspace = Workspace(tmp_path / "artifact", "key", {"model": []})
    names = (".tmpR7b2Xq", f".edgepress-{'0' * 32}.new", "model/.tmpR7b2Xq")
    for name in names:
        (workspace.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace.folder / name).touch()
    with workspace.lock():
        assert not any((workspace.folder / name).exists() for name in names)
        (workspace.folder / names[0]).touch()
    assert not workspace.folder.exists()  # nothing that the next run can use


# ---------------------------------------------------------------- disk, permissions, interrupts


def limit_file_size(size: int) -> Callable[[], None]:
    """Stands for a full disk: the kernel refuses larger writes in the same way."""
    return partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_nothing_is_published(lean: Path, recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    done = run_command(*make_command(recipe, lean, output), before=limit_file_size(2_000_000))
    assert done.returncode == 2, done.stderr
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (output / "model").exists()
    assert not (output / "manifest.json").exists()


@pytest.mark.slow
def test_a_disk_that_fills_up_while_copying_is_one_sentence(recipe: Path, lean: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "pipeline", tmp_path / "artifact"
    shutil.copytree(lean, source)
    (source / "teaser.png").write_bytes(bytes(60_000_000))
    recipe.write_text(QUICK)
    done = run_command(*make_command(recipe, source, output), before=limit_file_size(50_000_000))
    assert done.returncode == 2, done.stderr
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (output / "model").exists()


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_one_sentence(lean: Path, recipe: Path) -> None:
    done = run_command(*make_command(recipe, lean, Path("/sys/kernel/edgepress")))
    assert done.returncode == 2, done.stderr
    assert "/sys/kernel is read-only" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_second_command_on_the_same_output_is_rejected(lean: Path, recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(QUICK)
    with Workspace(tmp_path / "artifact", "another").lock():
        done = run_command(*make_command(recipe, lean, tmp_path / "artifact"))
    assert done.returncode == 2
    assert "Another edgepress process is using" in done.stderr


@pytest.fixture(scope="module")
def whole(lean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of the recipe, made without interruption."""
    output = tmp_path_factory.mktemp("whole")
    quantize_pipeline(Recipe.model_validate(yaml.safe_load(RECIPE)), lean, output)
    return output


@pytest.mark.slow
@pytest.mark.parametrize("awaited", ["", "*/statistics.safetensors", "*/blocks/*.safetensors"])
def test_an_interrupted_command_says_that_it_can_be_resumed_and_it_can(
    lean: Path, recipe: Path, whole: Path, tmp_path: Path, awaited: str
) -> None:
    output = tmp_path / "artifact"
    command = make_command(recipe, lean, output)
    process = Command(*command)
    while not any((output / ".work").glob(awaited or "*")) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    done = process.wait()
    errors = done.stderr
    assert done.returncode == 130, errors
    assert done.stdout == ""
    (message,) = [line for line in errors.splitlines() if line.startswith("Error: ")]
    assert message == "Error: Interrupted; finished work is kept, and the same command resumes."
    assert errors.splitlines()[-1] == message
    assert "Traceback" not in errors
    assert not (output / "manifest.json").exists()
    files = {path for path in output.glob(".work/*/*") if path.is_file()}
    assert files or not awaited
    last = run_command(*command)
    assert last.returncode == 0, last.stderr
    assert "cannot be resumed" not in last.stderr
    assert hash_model(output) == hash_model(whole)
    assert read_layers(output) == read_layers(whole)
