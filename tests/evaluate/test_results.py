from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from edgepress.errors import UserError
from edgepress.evaluate.identity import FolderIdentity
from edgepress.evaluate.results import Identity, Results, SamplingIdentity, load_results, save_results
from edgepress.evaluate.summary import summarise

from .rows import PSNR, TEXT, prompt, row


@pytest.fixture
def results() -> Results:
    rows = (row(prompt("a", "zh"), None), row(prompt("b"), 31.5))
    folder = FolderIdentity(path="model", sha256="0" * 64, files=1, bytes=1)
    identity = Identity(
        reference=folder,
        candidate=folder,
        sampling=SamplingIdentity(height=64, width=64, steps=2, guidance=0.0, seeds=1),
        dtype="float32",
        prompts_sha256="0" * 64,
        metrics={"psnr": "1"},
        libraries={"torch": "2"},
    )
    summary = summarise(rows, [PSNR], [TEXT])
    return Results(identity=identity, pair_scores=(PSNR,), picture_scores=(TEXT,), summary=summary, rows=rows)


def test_what_is_saved_is_read_again(results: Results, tmp_path: Path) -> None:
    save_results(results, tmp_path / "new" / "results.json")
    assert load_results(tmp_path / "new" / "results.json") == results
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["results.json"]


def test_an_identical_pair_is_null(results: Results, tmp_path: Path) -> None:
    save_results(results, tmp_path / "results.json")
    first = json.loads((tmp_path / "results.json").read_text("utf-8"))["rows"][0]
    assert first["values"]["psnr"] is None
    assert first["identical"] is True


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_values_that_json_does_not_know_are_refused(value: float) -> None:
    with pytest.raises(ValidationError):
        row(prompt("a"), value)


@pytest.mark.parametrize("content", ["", "{}", '{"schema_version": 2}'])
def test_other_files_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match="no results file of schema 1"):
        load_results(tmp_path / "results.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"results\.json cannot be read"):
        load_results(tmp_path / "results.json")
