from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.candidate_results import Candidate, make_candidate_results, spread
from helpers.result_rows import make_prompt, make_results, make_sample
from pydantic import ValidationError

from edgepress.common.errors import UserError
from edgepress.evaluate.results.results_file import load_results, save_results
from edgepress.evaluate.results.schema import Results


@pytest.fixture
def results() -> Results:
    return make_results([make_sample(make_prompt("a", "zh"), None), make_sample(make_prompt("b"), 31.5)])


def test_saved_results_are_loaded_unchanged(results: Results, tmp_path: Path) -> None:
    save_results(results, tmp_path / "new" / "results.json")
    assert load_results(tmp_path / "new" / "results.json") == results
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["results.json"]


def test_results_print_as_a_summary() -> None:
    prompts = [make_prompt(name) for name in "abc"]
    samples = [make_sample(prompt, psnr, (1, 0.5)) for prompt, psnr in zip(prompts, (None, 30, 32), strict=True)]
    lines = str(make_results(samples, verdict="passed")).splitlines()
    assert lines[0] == "int4: 3 pairs, 1 identical"
    assert lines[1] == "  PSNR dB ↑: 31.00 [30.00, 32.00]"
    assert "  text accuracy % ↑: 100.0 [100.0, 100.0] → 50.0 [50.0, 50.0]" in lines
    assert lines[-1] == "verdict: passed"


def test_psnr_of_an_identical_pair_is_null(results: Results, tmp_path: Path) -> None:
    save_results(results, tmp_path / "results.json")
    first = json.loads((tmp_path / "results.json").read_text("utf-8"))["samples"][0]["variants"]["int4"]
    assert first["values"]["psnr"] is None
    assert first["identical"] is True


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_values_that_json_lacks_are_rejected(value: float) -> None:
    with pytest.raises(ValidationError):
        make_sample(make_prompt("a"), value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a results file: line 1 is not valid JSON. Run"),
        ("[" * 50_000, "not a results file: it is nested too deeply"),
        ("\xff", "not a results file: it is not UTF-8"),
        ('{"schema_version": 3, "schema_version": 3}', "not a results file: the key 'schema_version' is given twice"),
        ("{}", "has schema version null, but this version of edgepress reads 2 to 3. Evaluate again, or"),
        ('{"schema_version": 3, "psnr": NaN}', "not a results file: the number NaN is not finite"),
        ('{"schema_version": 3, "psnr": 1e999}', "not a results file: the number 1e999 is not finite"),
        ("[]", "not a results file: it does not hold a JSON object"),
        ('{"schema_version": 4}', r"has schema version 4, but .* reads 2 to 3\. Update edgepress, or give"),
        ('{"schema_version": true}', "has schema version true"),
        ('{"schema_version": 3.0}', "has schema version 3.0"),
        ('{"schema_version": [3]}', r"has schema version \[3\]"),
        ('{"schema_version": 1, "summary": {}}', "has schema version 1, but this version"),
        ('{"schema_version": 2}', "not a valid results file of schema version 2: the key 'created' is missing"),
        ('{"schema_version": 2, "rows": [1], "variants": []}', "not a valid results file of schema version 2"),
        ('{"schema_version": 3}', "not a valid results file of schema version 3: the key 'created' is missing"),
    ],
)
def test_other_files_are_rejected(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content, "latin-1")
    with pytest.raises(UserError, match=message):
        load_results(tmp_path / "results.json")


Edit = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda c: c["samples"][1]["variants"]["int4"]["values"].update(psnr="high"), "samples.1.variants"),
        (lambda c: c.update(extra=1), "there is no key 'extra'"),
        (lambda c: c["samples"][0]["variants"].clear(), "a sample lacks a variant"),
        (lambda c: c["variants"]["int4"].update(groups=[]), "the first group of a variant is not 'all'"),
        (
            lambda c: c["variants"]["int4"]["worst_pairs"][0].update(prompt="z"),
            "names a prompt and seed without a sample",
        ),
        (lambda c: c["variants"]["int4"]["worst_pairs"][0].update(score="z"), "names an unknown score"),
        (lambda c: c["samples"].clear(), "names a prompt and seed without a sample"),
        (lambda c: c["variants"]["int4"].update(num_pairs=-1), r"num_pairs = -1: it must be at least 0"),
        (
            lambda c: c["variants"]["int4"]["mcnemar"]["exact"].update(p_value=1.5),
            "p_value = 1.5: it must be at most 1",
        ),
        (lambda c: c["stage_seconds"].update(generating=-1), "stage_seconds.generating = -1: it must be at least 0"),
        (lambda c: c["identity"]["sampling"].update(steps=0), "sampling.steps = 0: it must be greater than 0"),
        (lambda c: c["identity"]["reference"]["folder"].update(bytes=-1), "bytes = -1: it must be at least 0"),
        (
            lambda c: c["samples"][0]["reference"]["values"].update(text_accuracy=1.5),
            "the score 'text_accuracy' has the value 1.5, but it must be from 0 to 1",
        ),
        (lambda c: c["samples"][1]["variants"]["int4"]["image"]["values"].update(exact=-1), "the score 'exact' has"),
    ],
)
def test_edited_results_are_rejected_as_a_whole(edit: Edit, problem: str, results: Results, tmp_path: Path) -> None:
    content = results.model_dump(mode="json")
    edit(content)
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"not a valid results file of schema version 3: .*{problem}"):
        load_results(tmp_path / "results.json")


def test_a_negative_time_of_an_image_is_refused(tmp_path: Path) -> None:
    content = make_candidate_results({"int4": Candidate(spread(30), 5, 7)}).model_dump(mode="json")
    content["costs"]["int4"]["seconds"]["low"] = -1
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"costs\.int4\.seconds: a mean time and its interval must be at least 0"):
        load_results(tmp_path / "results.json")


def test_a_negative_psnr_is_legitimate(tmp_path: Path) -> None:
    """Two images whose squared difference is larger than the squared range; scores of no share have any value."""
    save_results(make_results([make_sample(make_prompt("a"), -1.5)]), tmp_path / "results.json")
    assert load_results(tmp_path / "results.json").samples[0].variants["int4"].values["psnr"] == -1.5


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Cannot read .*results\.json"):
        load_results(tmp_path / "results.json")
