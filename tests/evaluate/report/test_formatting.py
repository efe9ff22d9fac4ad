from __future__ import annotations

import pytest
from helpers.result_rows import (
    FLIP,
    PSNR,
    TEXT,
    failed_pair,
    make_prompt,
    make_results,
    sample_result,
    sample_with,
    truncate_prompt,
)

from edgepress.evaluate.metrics.base import Score, make_ground_truth_score
from edgepress.evaluate.report import formatting
from edgepress.evaluate.results.schema import Results
from edgepress.evaluate.stats.bootstrap import MeanCI


@pytest.mark.parametrize(
    ("value", "score", "signed", "text"),
    [
        (0.954, TEXT, False, "95.4"),
        (31.256, PSNR, False, "31.26"),
        (-0.001, PSNR, True, "0.00"),
        (-0.02, PSNR, True, "\u22120.02"),
        (0.5, FLIP, True, "+0.5000"),
    ],
)
def test_number(value: float, score: Score, signed: bool, text: str) -> None:
    assert formatting.format_score(value, score, signed) == text


def test_intervals() -> None:
    assert formatting.format_interval(MeanCI(mean=0, low=-0.01, high=0.5, count=2), TEXT) == "[\u22121.0, 50.0]"
    assert formatting.format_interval(MeanCI(mean=0, low=None, high=None, count=1), TEXT) == ""
    assert formatting.format_mean(MeanCI(mean=3, low=None, high=None, count=1), PSNR) == "3.00"


def test_gates(results: Results) -> None:
    titles = [formatting.format_gate(gate, results) for gate in results.gates[:5]]
    assert titles == [
        "new pictures that show nothing ≤ 0",
        "PSNR ≥ 36.00 dB",
        "text accuracy drop ≤ 2.0 points",
        "exact text drop ≤ 30.00 %",
        "psnr_drop ≤ 1",
    ]
    psnr = results.gates[1]
    assert formatting.format_gate_interval(psnr, results).startswith("[")
    assert formatting.format_gate_value(psnr.value, psnr, results).endswith(" dB")
    assert "true pictures" in formatting.format_gate_remarks(results.gates[4], results)


def test_the_explanation_counts(results: Results) -> None:
    assert formatting.format_headline(results) == "Failed"
    sentence = formatting.explain_verdict(results)
    assert sentence.startswith("4 pairs could not be compared, ")
    for verdict in {gate.verdict for gate in results.gates}:
        count = sum(gate.verdict == verdict for gate in results.gates)
        assert f"{formatting.pluralize(count, 'gate')} {verdict}" in sentence
    without = make_results([sample_result(make_prompt("a"), 30.0)])
    assert formatting.format_headline(without) == "Measured, not judged"
    assert formatting.explain_verdict(without) == "The recipe sets no gates."


def test_troubles_are_told_apart() -> None:
    rows = [
        sample_with(make_prompt("a"), failed_pair("missing")),
        sample_with(make_prompt("b"), failed_pair("missing"), seed=3),
        sample_with(make_prompt("c"), failed_pair("unreadable")),
        sample_with(make_prompt("d"), failed_pair("missing"), defect="black"),
    ]
    found = [
        (one.variant, one.problem, one.outcome, one.samples) for one in formatting.find_problems(make_results(rows))
    ]
    assert found == [
        ("int4", "missing", "error", (("a", 0), ("b", 3), ("d", 0))),
        ("int4", "unreadable", "error", (("c", 0),)),
        (None, "black", None, (("d", 0),)),
    ]


def test_prompts_that_were_cut_are_listed() -> None:
    rows = [
        truncate_prompt(sample_result(make_prompt("a"), 30.0), "what is cut is 'red'."),
        sample_result(make_prompt("b"), 30.0),
    ]
    found = [
        (one.variant, one.problem, one.outcome, one.samples) for one in formatting.find_problems(make_results(rows))
    ]
    assert found == [("int4", "prompt cut", None, (("a", 0),))]


def test_the_noise_floor_is_told(results: Results) -> None:
    assert "to the bit (16 pairs)" in formatting.describe_noise_floor(results)
    assert "not measured" in formatting.describe_noise_floor(results.model_copy(update={"floor": None}))
    other = results.variants["int4"]
    assert "in 12 of 12 pairs" in formatting.describe_noise_floor(results.model_copy(update={"floor": other}))


def test_headline_scores_come_first() -> None:
    scores = [Score(name=name, title=name) for name in ("flip", "text_accuracy", "x", "clip_i", "psnr")]
    assert [score.name for score in formatting.order_scores(scores)] == ["psnr", "clip_i", "text_accuracy", "flip", "x"]


def test_a_score_is_named_with_its_model_or_without() -> None:
    clip = Score(name="clip_i", title="CLIP-I [demo/clip d02e28c7]")
    against = make_ground_truth_score(clip)
    assert (formatting.short_title(clip), formatting.short_title(against)) == ("CLIP-I", "CLIP-I to truth")
    assert formatting.short_title(PSNR) == PSNR.title
    assert formatting.describe_comparison(clip, pair=True) == "variant against reference"
    assert formatting.describe_comparison(against, pair=False) == "each picture against the true one"
    assert formatting.describe_comparison(TEXT, pair=False) == "each picture by itself"
