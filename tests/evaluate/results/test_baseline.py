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
    make_failed_pair,
    make_identity,
    make_prompt,
    make_results,
    make_sample,
    make_sample_with,
)

from edgepress.common.errors import UserError
from edgepress.evaluate.results.baseline import compare_runs, require_comparable, require_same_plan
from edgepress.evaluate.results.schema import Results, ScoreChange

FILE = Path("baseline.json")


@pytest.fixture
def baseline() -> Results:
    samples = [
        make_sample(make_prompt("a"), 30.0, (1, 0.5)),
        make_sample(make_prompt("b"), 20.0, (1, 1)),
        make_sample(make_prompt("c"), 25.0),
    ]
    return make_results(samples)


def compute_changes(baseline: Results, current: Results) -> dict[str, ScoreChange]:
    require_comparable(FILE, baseline, current.identity)
    return {change.score: change for change in compare_runs(FILE, baseline, current).changes}


def test_changes_are_paired_by_prompt_and_seed(baseline: Results) -> None:
    samples = [
        make_sample(make_prompt("b"), 24.0, (1, 1)),
        make_sample(make_prompt("a"), 31.0, (1, 1)),
        make_sample_with(make_prompt("c"), make_failed_pair()),
    ]
    changes = compute_changes(baseline, make_results(samples))
    assert list(changes) == [score.name for score in (PSNR, FLIP, TEXT, EXACT)]
    psnr, text = changes["psnr"], changes["text_accuracy"]
    assert (psnr.variant, psnr.baseline, psnr.current) == (VARIANT, 25, 27.5)  # c is left out of both
    assert (psnr.change.mean, psnr.change.low, psnr.change.high, psnr.change.count) == (2.5, 1, 4, 2)
    assert (text.baseline, text.current, text.change.mean) == (0.75, 1, 0.25)


def test_variants_of_a_single_run_are_named(baseline: Results) -> None:
    sample = make_sample(make_prompt("a"), 30.0)
    samples = [sample.model_copy(update={"variants": {"new": sample.variants[VARIANT], **sample.variants}})]
    systems = make_identity().variants
    current = make_results(samples, identity=make_identity(variants={"new": systems[VARIANT], **systems}))
    require_comparable(FILE, baseline, current.identity)
    comparison = compare_runs(FILE, baseline, current)
    assert (comparison.only_current, comparison.only_baseline) == (("new",), ())
    assert {change.variant for change in comparison.changes} == {VARIANT}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts_sha256": "1" * 64}, "the prompts differ"),
        (
            {"sampling": make_identity().sampling.model_copy(update={"num_seeds": 2})},
            "the numbers of seeds differ",
        ),
        ({"metrics": {"psnr": "1", "text": "another OCR"}}, "the versions of metric text differ"),
        ({"metrics": {"psnr": "2", "text": "2"}}, "the versions of metric psnr and the versions of metric text differ"),
        ({"reference": make_identity().reference.model_copy(update={"dtype": "bfloat16"})}, "the references differ"),
        ({"ground_truth": make_identity().reference.folder}, "the ground-truth images differ"),
        ({"variants": {"other": make_identity().reference}}, "no variant in common .* it has int4, this run has other"),
    ],
)
def test_runs_that_are_not_comparable_are_rejected(changes: dict[str, Any], message: str, baseline: Results) -> None:
    with pytest.raises(UserError, match=message):
        require_comparable(FILE, baseline, make_identity(**changes))


@pytest.mark.parametrize(
    ("prompts", "sampling", "names", "message"),
    [
        ("1" * 64, {}, [VARIANT], "the prompts differ"),
        (None, {"width": 64, "steps": 3}, [VARIANT], "the sizes and the steps differ"),
        (
            None,
            {"guidance": 9.0, "negative_prompt": "a"},
            [VARIANT],
            "the guidance scales and the negative prompts differ",
        ),
        (None, {}, ["other"], "no variant in common .* it has int4, this run has other"),
    ],
)
def test_another_plan_is_rejected_without_reading_a_model(
    prompts: str | None, sampling: dict[str, Any], names: list[str], message: str, baseline: Results
) -> None:
    current = make_identity()
    info = current.sampling.model_copy(update=sampling)
    with pytest.raises(UserError, match=message):
        require_same_plan(FILE, baseline, prompts or current.prompts_sha256, info, names)
    require_same_plan(FILE, baseline, current.prompts_sha256, current.sampling, [VARIANT, "other"])


def test_libraries_and_additional_metrics_may_differ(baseline: Results) -> None:
    current = make_identity(libraries={"torch": "3"}, metrics={**make_identity().metrics, "clip_i": "1"})
    require_comparable(FILE, baseline, current)
