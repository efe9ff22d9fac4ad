from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.result_rows import make_prompt, make_results, sample_result
from pydantic import ValidationError

from edgepress.common.errors import UserError
from edgepress.evaluate.results.schema import Results, load_results, save_results


@pytest.fixture
def results() -> Results:
    return make_results([sample_result(make_prompt("a", "zh"), None), sample_result(make_prompt("b"), 31.5)])


def test_what_is_saved_is_read_again(results: Results, tmp_path: Path) -> None:
    save_results(results, tmp_path / "new" / "results.json")
    assert load_results(tmp_path / "new" / "results.json") == results
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["results.json"]


def test_an_identical_pair_is_null(results: Results, tmp_path: Path) -> None:
    save_results(results, tmp_path / "results.json")
    first = json.loads((tmp_path / "results.json").read_text("utf-8"))["rows"][0]["variants"]["int4"]
    assert first["values"]["psnr"] is None
    assert first["identical"] is True


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_values_that_json_does_not_know_are_refused(value: float) -> None:
    with pytest.raises(ValidationError):
        sample_result(make_prompt("a"), value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is not JSON"),
        ("{}", "is of schema None, and this edgepress reads 2; evaluate again"),
        ("[]", "is of schema None"),
        ('{"schema_version": 1, "summary": {}}', "is of schema 1, and this edgepress reads 2"),
        ('{"schema_version": 2}', "is no results file of schema 2 .see created"),
    ],
)
def test_other_files_are_refused(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=sentence):
        load_results(tmp_path / "results.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"results\.json cannot be read"):
        load_results(tmp_path / "results.json")
