from __future__ import annotations

import pytest
from helpers.result_rows import (
    EXACT,
    PSNR,
    TEXT,
    VARIANT,
    make_failed_pair,
    make_identity,
    make_pair,
    make_prompt,
    make_results,
    make_sample,
    make_sample_with,
    truncate_prompt,
)

from edgepress.evaluate.metrics.base import make_ground_truth_score
from edgepress.evaluate.report import descriptions
from edgepress.evaluate.report.descriptions import Problem, find_problems
from edgepress.evaluate.report.formatting import pluralize
from edgepress.evaluate.results.schema import TRUNCATED, PromptSubset, Results


@pytest.mark.slow
def test_the_explanation_counts_gates_by_verdict(results: Results) -> None:
    assert descriptions.get_headline(results) == "Failed"
    sentence = descriptions.explain_verdict(results)
    assert sentence.startswith("4 pairs could not be compared, ")
    for verdict in {gate.verdict for gate in results.gates}:
        count = sum(gate.verdict == verdict for gate in results.gates)
        assert f"{pluralize(count, 'gate')} {verdict}" in sentence


def test_results_without_gates_have_no_verdict() -> None:
    results = make_results([make_sample(make_prompt("a"), 30.0)])
    assert descriptions.get_headline(results) == "Measured, no gates"
    assert descriptions.explain_verdict(results) == "The recipe sets no gates."


def test_samples_and_systems_are_described() -> None:
    subset = PromptSubset(total=70, limited_by="evaluation.count")
    results = make_results([make_sample(make_prompt("a"), 30.0)], prompt_subset=subset)
    assert descriptions.describe_samples(results) == (
        "1 of 70 prompts (evaluation.count) × 1 seed, 96×64 pixels, 2 steps"
    )
    simulated = make_identity().reference.model_copy(update={"kind": "rknn", "engine": "simulated by rknn-toolkit2"})
    assert descriptions.describe_system(simulated) == "RKNN artifact, simulated by rknn-toolkit2, float32"


def test_problems_are_listed_by_kind() -> None:
    samples = [
        make_sample_with(make_prompt("a"), make_failed_pair("missing")),
        make_sample_with(make_prompt("b"), make_failed_pair("missing"), seed=3),
        make_sample_with(make_prompt("c"), make_failed_pair("unreadable")),
        make_sample_with(make_prompt("d"), make_failed_pair("missing"), defect="black"),
    ]
    assert find_problems(make_results(samples)) == [
        Problem("int4", "missing", "error", (("a", 0), ("b", 3), ("d", 0))),
        Problem("int4", "unreadable", "error", (("c", 0),)),
        Problem(None, "black", None, (("d", 0),)),
    ]


def test_only_defects_that_the_reference_lacks_are_failures() -> None:
    samples = [
        make_sample_with(make_prompt("a"), make_pair(9.0, defect="black")),
        make_sample_with(make_prompt("b"), make_pair(9.0, defect="duplicate"), defect="duplicate"),
    ]
    assert find_problems(make_results(samples)) == [
        Problem("int4", "black", "failure", (("a", 0),)),
        Problem("int4", "duplicate, like the reference", None, (("b", 0),)),
        Problem(None, "duplicate", None, (("b", 0),)),
    ]


def test_truncated_prompts_are_listed() -> None:
    samples = [
        truncate_prompt(make_sample(make_prompt("a"), 30.0), "'red' was cut off."),
        make_sample(make_prompt("b"), 30.0),
    ]
    assert find_problems(make_results(samples)) == [Problem("int4", "prompt truncated", None, (("a", 0),))]


def test_a_prompt_that_is_truncated_for_all_alike_is_listed_once() -> None:
    sample = truncate_prompt(make_sample(make_prompt("a"), 30.0), "'red' was cut off.")
    assert sample.reference
    notes = sample.reference.notes | {TRUNCATED: ("'red' was cut off.",)}
    alike = sample.model_copy(update={"reference": sample.reference.model_copy(update={"notes": notes})})
    assert find_problems(make_results([alike])) == [Problem(None, "prompt truncated", None, (("a", 0),))]


def test_the_noise_floor_is_described(results: Results) -> None:
    assert "bit-identical images (16 pairs)" in descriptions.describe_noise_floor(results)
    without = results.model_copy(update={"noise_floor": None})
    assert "not measured" in descriptions.describe_noise_floor(without)
    noisy = results.model_copy(update={"noise_floor": results.variants["int4"]})
    assert "different images in 12 of 12 pairs" in descriptions.describe_noise_floor(noisy)


def test_mcnemars_test_is_described() -> None:
    samples = [make_sample(make_prompt("a"), 30.0, (1, 0), seed=seed) for seed in range(2)]
    summary = make_results(samples).variants[VARIANT]
    assert descriptions.describe_mcnemar(summary, EXACT) == (
        "exact text: only the reference is right in 2 pairs, only the variant in 0 pairs (exact McNemar test, p = 0.5; "
        "images of one prompt are counted as independent, so p is too small)"
    )
    assert descriptions.describe_mcnemar(summary, TEXT) == ""
    once = make_results(samples[:1]).variants[VARIANT]
    assert "independent" not in descriptions.describe_mcnemar(once, EXACT)


def test_the_comparison_of_a_score_is_described() -> None:
    ground_truth = make_ground_truth_score(PSNR)
    assert descriptions.describe_comparison(PSNR, is_pair_score=True) == "variant vs. reference"
    assert descriptions.describe_comparison(ground_truth, is_pair_score=False) == "each image vs. the ground truth"
    assert descriptions.describe_comparison(TEXT, is_pair_score=False) == "each image on its own"


def test_remarks_on_text_are_problems_of_the_variant() -> None:
    sample = make_sample(make_prompt("a"), 30.0)
    pair = sample.variants[VARIANT]
    assert pair.image
    notes = {"read": (), "remarks": ("read, but mirrored: OPEN",)}
    changed = pair.model_copy(update={"image": pair.image.model_copy(update={"notes": notes})})
    results = make_results([sample.model_copy(update={"variants": {VARIANT: changed}})])
    assert find_problems(results) == [Problem("int4", "text: read, but mirrored", None, (("a", 0),))]
