"""The benchmark of all recipes' artifacts: the commands of `make artifact`, and what refuses."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from edgepress.benchmarks.evaluation.device_artifacts import FailedCommand, list_commands, run_commands
from edgepress.recipes.loader import load_recipe
from edgepress.storage.layout import Artifact

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.parametrize("device", ["pi5", "rk3588"])
def test_the_commands_are_those_of_make_artifact(device: str) -> None:
    """Make only says what it would run."""
    arguments = [
        "make",
        "--dry-run",
        "artifact",
        f"DEVICE={device}",
        "OUTPUT=out",
        "SIGNS=signs",
        "EDGEPRESS=edgepress",
    ]
    output = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = re.findall(r"^edgepress (.*)$", output.replace("\\\n", " "), re.MULTILINE)
    optional = "$(test -d signs && echo --ground-truth signs)"
    expected = [line.replace(optional, "--ground-truth signs").replace('"', "").split() for line in lines]
    assert list_commands(load_recipe(device), Artifact(Path("out")), Path("signs"), limit=0) == expected


@pytest.mark.slow
def test_a_command_that_refuses_ends_the_work_with_its_reason(tmp_path: Path) -> None:
    commands = [["recipes"], ["recipes", "show", "nothing"], ["recipes"]]
    failure = run_commands(commands, tmp_path / "x.log")
    assert isinstance(failure, FailedCommand)
    assert failure.command == "recipes"
    assert "nothing" in failure.reason
    assert run_commands([["recipes"]], tmp_path / "x.log") is None
