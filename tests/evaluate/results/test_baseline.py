from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.result_rows import (
    EXACT,
    FLIP,
    PSNR,
    TEXT,
    VARIANT,
    failed_pair,
    make_identity,
    make_prompt,
    make_results,
    sample_result,
    sample_with,
)

from edgepress.common.errors import UserError
from edgepress.evaluate.results.baseline import compare_runs, require_comparable
from edgepress.evaluate.results.schema import Results

FILE = Path("then.json")


@pytest.fixture
def then() -> Results:
    rows = [
        sample_result(make_prompt("a"), 30.0, (1, 0.5)),
        sample_result(make_prompt("b"), 20.0, (1, 1)),
        sample_result(make_prompt("c"), 25.0),
    ]
    return make_results(rows)


def changes(then: Results, now: Results) -> dict[str, Any]:
    require_comparable(FILE, then, now.identity)
    return {change.score: change for change in compare_runs(FILE, then, now).changes}


def test_changes_are_paired_by_prompt_and_seed(then: Results) -> None:
    rows = [
        sample_result(make_prompt("b"), 24.0, (1, 1)),
        sample_result(make_prompt("a"), 31.0, (1, 1)),
        sample_with(make_prompt("c"), failed_pair()),
    ]
    found = changes(then, make_results(rows))
    assert list(found) == [score.name for score in (PSNR, FLIP, TEXT, EXACT)]
    psnr, text = found["psnr"], found["text_accuracy"]
    assert (psnr.variant, psnr.before, psnr.after) == (VARIANT, 25, 27.5)  # c is left out of both
    assert (psnr.change.mean, psnr.change.low, psnr.change.high, psnr.change.count) == (2.5, 1, 4, 2)
    assert (text.before, text.after, text.change.mean) == (0.75, 1, 0.25)


def test_variants_that_only_one_has_are_named(then: Results) -> None:
    one = sample_result(make_prompt("a"), 30.0)
    rows = [one.model_copy(update={"variants": {"new": one.variants[VARIANT], **one.variants}})]
    subjects = make_identity().variants
    now = make_results(rows, identity=make_identity(variants={"new": subjects[VARIANT], **subjects}))
    require_comparable(FILE, then, now.identity)
    found = compare_runs(FILE, then, now)
    assert (found.only_current, found.only_baseline) == (("new",), ())
    assert {change.variant for change in found.changes} == {VARIANT}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"prompts_sha256": "1" * 64}, "the prompts differ"),
        (
            {"sampling": make_identity().sampling.model_copy(update={"seeds": 2})},
            "size, steps, guidance or seeds differ",
        ),
        ({"metrics": {"psnr": "1", "text": "another OCR"}}, "the metrics text differ"),
        ({"metrics": {"psnr": "2", "text": "2"}}, "the metrics psnr and the metrics text differ"),
        ({"reference": make_identity().reference.model_copy(update={"dtype": "bfloat16"})}, "the references differ"),
        ({"truth": make_identity().reference.folder}, "the true pictures differ"),
        (
            {"variants": {"other": make_identity().reference}},
            "has none of the variants other, only int4; name candidates",
        ),
    ],
)
def test_what_was_measured_otherwise_is_not_compared(changed: dict[str, Any], sentence: str, then: Results) -> None:
    with pytest.raises(UserError, match=sentence):
        require_comparable(FILE, then, make_identity(**changed))


def test_other_libraries_and_new_metrics_may_be_compared(then: Results) -> None:
    now = make_identity(libraries={"torch": "3"}, metrics={**make_identity().metrics, "clip_i": "1"})
    require_comparable(FILE, then, now)
