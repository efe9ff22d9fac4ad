"""Options that change nothing, because of another option or of what they are about, are refused with the reason.

Which ones there are is read from the commands: what they pass to `require_effect`, and help that says `With --option`.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from helpers.hostile_arguments import find_commands
from helpers.published_artifact import publish_onnx, write_published_artifact
from PIL import Image

from edgepress.cli import main as main_module
from edgepress.cli.command import require_effect
from edgepress.cli.main import main

pytestmark = pytest.mark.usefixtures("no_work")

SINGLE = ("generate", "artifact", "--prompt", "a cat", "--output", "a.png")
BATCH = ("generate", "artifact", "--prompts", "guided.json", "--output", "new")
SERVE = ("serve", "artifact", "--allow-root", "--port", "0", "--state", "state")
PLAN = ("export", "rknn", "--recipe", "recipe.yaml", "--plan")
CASES: Sequence[tuple[str, Sequence[str], str]] = (  # the option, the command with it, and why it changes nothing
    ("--gates", ("evaluate", "--pairs", "images", "images", "--gates"), "only a recipe has any"),
    ("--run", ("verify", "model-only", "--run"), "it has no ONNX graphs"),
    ("--no-run", ("verify", "model-only", "--no-run"), "it has no ONNX graphs"),
    ("--private", ("publish", "artifact", "a/b", "--dry-run", "--private", "--output", "new"), "a dry run uploads"),
    ("--component", (*PLAN, "--component", "vae"), "--plan is about the whole pipeline"),
    ("--output", (*PLAN, "--output", "new"), "--plan is about the whole pipeline"),
    ("--timeout", (*PLAN, "--timeout", "5"), "--plan is about the whole pipeline"),
    ("--strength", (*SINGLE, "--strength", "0.5"), "there is no --image to start from"),
    ("--strength", (*BATCH, "--strength", "0.5"), "no prompt has an image to start from"),
    ("--quality", (*SINGLE, "--quality", "80"), "PNG files lose nothing"),
    ("--quality", (*BATCH, "--quality", "80"), "PNG files lose nothing"),
    ("--engine", ("generate", "npu", *SINGLE[2:], "--engine", "onnxruntime"), "parts for an NPU have their own"),
    ("--negative-prompt", (*SINGLE, "--negative-prompt", "blue"), "there is no --guidance"),
    ("--negative-prompt", (*BATCH, "--negative-prompt", "blue"), "every prompt has its own"),
    ("--guidance", (*BATCH, "--guidance", "3"), "every prompt has its own"),
    (
        "--preset",
        (*SINGLE, "--preset", "fast", "--steps", "4", "--size", "64x64", "--guidance", "0"),
        "--steps, --size and --guidance replace all that it says",
    ),
    ("--format", (*SINGLE, "--format", "jpeg"), "for --prompts"),
    ("--low-memory", (*SINGLE, "--low-memory"), "for --prompts"),
    ("--restart", (*SINGLE, "--restart"), "for --prompts"),
    ("--keep-hours", (*SERVE, "--keep-images", "0", "--keep-hours", "5"), "--keep-images 0 keeps no image"),
    ("--allowed-host", (*SERVE, "--host", "0.0.0.0", "--allowed-host", "b.local"), "answers to every name"),
)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands name."""
    folder = tmp_path_factory.mktemp("places")
    publish_onnx(write_published_artifact(folder / "artifact"), presets={"fast": {"steps": 4, "size": [64, 64]}})
    shutil.copytree(folder / "artifact", folder / "model-only")
    shutil.rmtree(folder / "model-only" / "onnx")
    shutil.copytree(folder / "model-only", folder / "npu")
    (folder / "npu" / "rknn").mkdir()
    (folder / "npu" / "rknn" / "pipeline.json").touch()
    (folder / "images").mkdir()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(folder / "images" / "a.png")
    (folder / "recipe.yaml").write_text(json.dumps({"device": "test", "rknn": {"target": "rk3588"}}))
    prompt = {"id": "a", "prompt": "a cat", "language": "en", "guidance": 2.0, "negative_prompt": "red"}
    (folder / "guided.json").write_text(json.dumps({"prompts": [prompt]}))
    return folder


@pytest.mark.parametrize(("option", "arguments", "reason"), CASES)
def test_options_without_effect_are_refused(
    option: str, arguments: Sequence[str], reason: str, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places)
    result = CliRunner().invoke(main, arguments, prog_name="edgepress")
    message = result.stderr.splitlines()[-1]
    assert result.exit_code == 2, message
    assert option in message
    assert reason in message
    assert re.search(r"Leave (it|them) out\.$", message)


def list_required_effects() -> Iterator[str]:
    """The options that commands pass to `require_effect`, one by one or in a loop over several."""
    for file in Path(inspect.getfile(main_module)).parent.glob("*.py"):
        tree = ast.parse(file.read_text("utf-8"))
        loops = {node.target.id: node.iter for node in ast.walk(tree) if isinstance(node, ast.For)
                 and isinstance(node.target, ast.Name)}  # fmt: skip
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == require_effect.__name__:
                name = node.args[0]
                constants = ast.walk(loops[name.id] if isinstance(name, ast.Name) else name)
                yield from (constant.value for constant in constants if isinstance(constant, ast.Constant))


def list_dependent_options() -> Iterator[str]:
    """The options whose help says that they are for another one."""
    for _, command in find_commands(main):
        for parameter in command.params:
            if isinstance(parameter, click.Option) and re.search(r"^With --|\bimages of --", parameter.help or ""):
                yield parameter.opts[-1]


def test_every_such_option_is_here() -> None:
    required, dependent = set(list_required_effects()), set(list_dependent_options())
    assert {"--gates", "--timeout", "--strength"} <= required
    assert {"--format", "--low-memory"} <= dependent
    assert required | dependent <= {option for option, _, _ in CASES}
