"""`edgepress info`: the text and the JSON say what `edgepress.info` found; anything else is a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import edgepress
from edgepress.api.folder_info import PipelineInfo
from edgepress.cli.main import main
from edgepress.pipelines.hub import DEMO_PIPELINE


def test_the_text_is_that_of_the_public_function() -> None:
    result = CliRunner().invoke(main, ["info", str(DEMO_PIPELINE)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{edgepress.info(DEMO_PIPELINE, layers=True)}\n"


def test_json_has_the_same_numbers() -> None:
    result = CliRunner().invoke(main, ["info", str(DEMO_PIPELINE), "--json"])
    content, info = json.loads(result.stdout), edgepress.info(DEMO_PIPELINE, layers=True)
    assert isinstance(info, PipelineInfo)
    assert content["kind"] == "pipeline"
    assert {part["name"]: (part["parameters"], part["nbytes"]) for part in content["components"]} == {
        part.name: (part.parameters, part.nbytes) for part in info.components
    }


@pytest.mark.parametrize("name", ["absent", "file", "empty"])
def test_what_is_neither_is_one_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    result = CliRunner().invoke(main, ["info", str(tmp_path / name)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")
    assert str(tmp_path / name) in result.stderr
    assert result.stderr.count("\n") == 1
