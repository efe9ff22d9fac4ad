"""The example workflow, as far as it can be compared with the repository without a runner."""

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
from edgepress.evaluate.report.publishing import RESULTS_FILE
from edgepress.recipes.loader import load_recipe

ROOT = Path(edgepress.__file__).resolve().parent
TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
VARIABLES = re.findall(r"^([A-Z_]+) \?=", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    (job,) = yaml.safe_load((ROOT / "docs" / "github-actions.yml").read_text("utf-8"))["jobs"].values()
    content: dict[str, Any] = job
    return content


def list_commands(job: dict[str, Any]) -> list[list[str]]:
    return [shlex.split(line) for step in job["steps"] for line in step.get("run", "").splitlines()]


def test_every_target_and_variable_exists(job: dict[str, Any]) -> None:
    calls = [command for command in list_commands(job) if command[0] == "make"]
    assert [target for _, target, *_ in calls] == ["quantize", "evaluate"]
    assert {target for _, target, *_ in calls} <= set(TARGETS)
    assert {argument.split("=")[0] for _, _, *arguments in calls for argument in arguments} <= set(VARIABLES)


def test_make_writes_to_the_folder_of_the_workflow(job: dict[str, Any]) -> None:
    """`make --dry-run` prints its commands, with the workflow's variables."""
    device, folder = job["env"]["DEVICE"], job["env"]["EVALUATION"]
    assert load_recipe(device).device == device
    output = subprocess.run(
        ["make", "--dry-run", "evaluate", f"DEVICE={device}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"--output {folder}" in output.replace('"', "")


def test_the_uploaded_files_are_the_written_ones(job: dict[str, Any]) -> None:
    (upload,) = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    uploaded = {Path(line).name for line in upload["with"]["path"].splitlines()}
    assert uploaded == {writer.HTML_FILE, writer.JUNIT_FILE, RESULTS_FILE}
    (summary,) = [command for command in list_commands(job) if command[0] == "cat"]
    assert Path(summary[1]).name == writer.MARKDOWN_FILE


def test_failures_are_reported_as_well(job: dict[str, Any]) -> None:
    """The steps after the gate always run, and none before it hides a failure."""
    steps = job["steps"]
    gate = next(number for number, step in enumerate(steps) if "make evaluate" in step.get("run", ""))
    assert all(step["if"] == "always()" for step in steps[gate + 1 :])
    assert not any("continue-on-error" in step for step in steps)
    assert "||" not in "".join(step.get("run", "") for step in steps)
