"""The example of a workflow, as far as it can be held against the repository without a runner."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

import edgepress
from edgepress.evaluate.report import writer
from edgepress.evaluate.report.previous_files import RESULTS_FILE
from edgepress.recipes.loader import load_recipe

ROOT = Path(edgepress.__file__).resolve().parent
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
VARIABLES = re.findall(r"^([A-Z]+) \?=", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    (only,) = yaml.safe_load((ROOT / "docs" / "github-actions.yml").read_text("utf-8"))["jobs"].values()
    found: dict[str, Any] = only
    return found


def commands(job: dict[str, Any]) -> list[list[str]]:
    return [shlex.split(line) for step in job["steps"] for line in step.get("run", "").splitlines()]


def test_every_target_and_variable_exists(job: dict[str, Any]) -> None:
    made = [words for words in commands(job) if words[0] == "make"]
    assert [target for _, target, *_ in made] == ["quantize", "evaluate"]
    assert {target for _, target, *_ in made} <= set(TARGETS)
    assert {word.split("=")[0] for _, _, *words in made for word in words} <= set(VARIABLES)


def test_make_would_write_where_the_workflow_looks(job: dict[str, Any]) -> None:
    """`make` prints what it would run, with the workflow's own variables."""
    device, folder = job["env"]["DEVICE"], job["env"]["EVALUATION"]
    assert load_recipe(device).device == device
    shown = subprocess.run(
        ["make", "--dry-run", "evaluate", f"DEVICE={device}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"--output {folder}" in shown.replace('"', "")


def test_what_is_kept_is_what_is_written(job: dict[str, Any]) -> None:
    (upload,) = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    kept = {Path(line).name for line in upload["with"]["path"].splitlines()}
    assert kept == {writer.HTML_FILE, writer.JUNIT_FILE, RESULTS_FILE}
    (summary,) = [words for words in commands(job) if words[0] == "cat"]
    assert Path(summary[1]).name == writer.MARKDOWN_FILE


def test_what_failed_is_shown_as_well(job: dict[str, Any]) -> None:
    """The steps after the gate run whatever it says, and none before it hides a failure."""
    steps = job["steps"]
    gate = next(number for number, step in enumerate(steps) if "make evaluate" in step.get("run", ""))
    assert all(step["if"] == "always()" for step in steps[gate + 1 :])
    assert not any("continue-on-error" in step for step in steps)
    assert "||" not in "".join(step.get("run", "") for step in steps)
