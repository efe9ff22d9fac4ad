"""Every option and argument of every command, with hostile values, up to where the work begins.

Each ends at once: accepted, or refused in one sentence with its name or value and what to do; no file is changed.
Of the cases of an option or argument, every STEP-th is run, from another one on for each, so that none is left out.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers.command_endings import find_ending_problems
from helpers.file_states import link, list_files
from helpers.hostile_arguments import HostileCase, find_commands, make_cases, write_places
from helpers.published_artifact import write_published_artifact
from PIL import Image

from edgepress.cli.main import main
from edgepress.common.errors import escape_controls

OUTPUT = ("--output", "output")
BASE: Mapping[str, Sequence[str]] = {  # valid arguments
    "bench": ("artifact", "--images", "1", "--steps", "1"),
    "clean": ("artifact",),
    "compare": ("quantized/model", "--model", "pipeline", "--metric", "psnr"),
    "convert": ("w.safetensors", "--base", "pipeline", *OUTPUT),
    "describe": ("artifact",),
    "diff": ("artifact", "artifact"),
    "doctor": (),
    "evaluate": ("--model", "pipeline", "--candidate", "quantized/model", "--metric", "psnr"),
    "evaluate report": ("results.json",),
    "export comfyui": ("--model", "quantized", *OUTPUT),
    "export compressed-tensors": ("--model", "quantized", *OUTPUT),
    "export diffusers": ("--model", "quantized", *OUTPUT),
    "export gguf": ("--model", "quantized", *OUTPUT),
    "export onnx": ("--recipe", "recipe.yaml", "--model", "quantized", *OUTPUT),
    "export rknn": ("--recipe", "recipe.yaml", "--model", "quantized", *OUTPUT),
    "generate": ("artifact", "--prompt", "a cat", "--output", "a.png", "--steps", "1"),
    "info": ("artifact",),
    "kit": ("artifact",),
    "plan": ("--recipe", "pi5", "--model", "pipeline"),
    "publish": ("artifact", "owner/name", "--dry-run", *OUTPUT),
    "quantize": ("--recipe", "recipe.yaml", "--model", "pipeline", *OUTPUT),
    "recipes": (),
    "recipes show": ("pi5",),
    "serve": ("artifact", "--allow-root", "--port", "0", "--state", "state"),
    "sign": ("artifact", "--key", "binary"),
    "verify": ("artifact",),
    "wheelhouse": OUTPUT,
}
QUICK = ("clean", "diff", "kit", "recipes", "recipes show", "sign")
COMMANDS = {" ".join(path): (path, command) for path, command in find_commands(main)}
RECIPE = {
    "device": "test",
    "quantize": {"method": "rtn", "components": ["text_encoder", "transformer"], "scheme": {"group_size": 32}},
    "calibration": {"count": 1, "steps": 1},
    "rknn": {"target": "rk3588", "precision": "fp16", "max_prompt_tokens": 32},
}
STEP = 12  # 1 runs all cases, which take up to a tenth of a second each
PIPELINE_COMMANDS = tuple(
    name for name, base in BASE.items() if {"pipeline", "quantized", "quantized/model", "results.json"} & set(base)
)


pytestmark = pytest.mark.usefixtures("no_work")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an artifact, a recipe and images. Tests must not change it."""
    folder = tmp_path_factory.mktemp("places")
    write_places(folder)
    write_published_artifact(folder / "artifact")
    (folder / "recipe.yaml").write_text(json.dumps(RECIPE))
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / "images" / "a.png")
    return folder


@pytest.fixture(scope="module")
def pipeline_places(places: Path, lean: Path) -> Path:
    """The same with a pipeline, and what was made of it. Tests must not change it."""
    folder = places.with_name("pipelines")
    shutil.copytree(places, folder, symlinks=True, copy_function=link)
    shutil.copytree(lean, folder / "pipeline", copy_function=link)
    link(lean / "transformer" / "diffusion_pytorch_model.safetensors", folder / "w.safetensors")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        for arguments in (
            ("quantize", *BASE["quantize"][:-1], "quantized"),
            ("evaluate", *BASE["evaluate"], *OUTPUT),
        ):
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, result.output
    shutil.move(folder / "output" / "results.json", folder)
    shutil.rmtree(folder / "output")
    return folder


def find_problems(name: str, case: HostileCase, result: Result) -> Iterator[str]:
    """What is wrong with how a command has ended."""
    problems = list(find_ending_problems(name, result))
    yield from problems
    if result.exit_code == 2 and not problems and not is_named(case, result.stderr.splitlines()[-1]):
        yield "neither the option nor the value"


def is_named(case: HostileCase, sentence: str) -> bool:
    """Whether a sentence names what is hostile: the option, the argument, or its value."""
    if case.parameter is None:
        return case.value is None or case.value in sentence
    names = [*case.parameter.opts, *case.parameter.secondary_opts]
    names += [name.strip("-").replace("-", " ") for name in names if len(name) > 2]
    if isinstance(case.parameter, click.Argument):
        names.append(case.parameter.human_readable_name)
    elif case.value is None and case.parameter.is_flag and "exclude each other" not in sentence:
        return True  # a valid combination; the sentence is about something else
    if "pip install" in sentence or (case.value is not None and not case.value.strip() and "is blank" in sentence):
        return True
    value = case.value or ""
    parts = [escape_controls(part)[:20] for part in (value, *re.split("[=:@]", value), value.lower()) if len(part) > 1]
    return any(text in sentence for text in (*names, *parts)) or "\\xe9" in sentence


def test_every_command_is_here() -> None:
    assert set(BASE) == set(COMMANDS)


def choose_cases(name: str) -> Iterator[HostileCase]:
    """Every STEP-th case of each option and argument of a command, and at least one."""
    cases = make_cases(*COMMANDS[name], BASE[name])
    by_parameter = itertools.groupby(cases, lambda case: case.parameter)
    for start, (_, group) in enumerate(by_parameter, sorted(BASE).index(name)):
        of_parameter = list(group)
        yield from of_parameter[start % min(STEP, len(of_parameter)) :: STEP]


def run_cases(name: str, template: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs cases of a command; returns what was wrong, a line each."""
    problems = []
    state: dict[str, tuple[int, int, int]] = {}
    for case in choose_cases(name):
        if not state:
            monkeypatch.chdir(template)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(template, folder, symlinks=True, copy_function=link)
            state = list_files(folder)
        monkeypatch.chdir(folder)
        result = CliRunner().invoke(main, case.arguments, prog_name="edgepress")
        after = list_files(folder)
        reasons = list(find_problems(name, case, result))
        lost = [path for path in state if path not in after]
        if result.exit_code == 2 and after != state:
            reasons.append(f"changed {sorted(set(after.items()) ^ set(state.items()))[0][0]}")
        elif lost:
            reasons.append(f"removed {lost[0]}")
        if after != state:
            state = {}
        shown = " ".join(argument[:40] for argument in case.arguments)
        message = (result.stderr.splitlines() or [""])[-1]
        problems += [f"{escape_controls(shown)}: {problem}: {escape_controls(message)}" for problem in reasons]
    return "\n".join(problems)


@pytest.mark.parametrize("name", QUICK)
def test_hostile_arguments(name: str, places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_cases(name, places, tmp_path / "run", monkeypatch) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(BASE) - set(QUICK) - set(PIPELINE_COMMANDS)))
def test_hostile_arguments_of_slower_commands(
    name: str, places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cases(name, places, tmp_path / "run", monkeypatch) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", PIPELINE_COMMANDS)
def test_hostile_arguments_of_commands_with_pipelines(
    name: str, pipeline_places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_cases(name, pipeline_places, tmp_path / "run", monkeypatch) == ""
