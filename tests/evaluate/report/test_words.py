from __future__ import annotations

import pytest

from edgepress.evaluate.bootstrap import Mean
from edgepress.evaluate.registry import Score, truth_score
from edgepress.evaluate.report import words
from edgepress.evaluate.results import Results

from ..rows import FLIP, PSNR, TEXT, cut, failed, prompt, results_of, row, row_of


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
    assert words.number(value, score, signed) == text


def test_intervals() -> None:
    assert words.interval(Mean(mean=0, low=-0.01, high=0.5, count=2), TEXT) == "[\u22121.0, 50.0]"
    assert words.interval(Mean(mean=0, low=None, high=None, count=1), TEXT) == ""
    assert words.with_interval(Mean(mean=3, low=None, high=None, count=1), PSNR) == "3.00"


def test_gates(results: Results) -> None:
    titles = [words.gate_title(gate, results) for gate in results.gates[:5]]
    assert titles == [
        "new pictures that show nothing ≤ 0",
        "PSNR ≥ 36.00 dB",
        "text accuracy drop ≤ 2.0 points",
        "exact text drop ≤ 30.00 %",
        "psnr_drop ≤ 1",
    ]
    psnr = results.gates[1]
    assert words.gate_interval(psnr, results).startswith("[")
    assert words.gate_amount(psnr.value, psnr, results).endswith(" dB")
    assert "true pictures" in words.gate_remarks(results.gates[4], results)


def test_the_explanation_counts(results: Results) -> None:
    assert words.headline(results) == "Failed"
    sentence = words.explanation(results)
    assert sentence.startswith("4 pairs could not be compared, ")
    for verdict in {gate.verdict for gate in results.gates}:
        count = sum(gate.verdict == verdict for gate in results.gates)
        assert f"{words.counted(count, 'gate')} {verdict}" in sentence
    without = results_of([row(prompt("a"), 30.0)])
    assert words.headline(without) == "Measured, not judged"
    assert words.explanation(without) == "The recipe sets no gates."


def test_troubles_are_told_apart() -> None:
    rows = [
        row_of(prompt("a"), failed("missing")),
        row_of(prompt("b"), failed("missing"), seed=3),
        row_of(prompt("c"), failed("unreadable")),
        row_of(prompt("d"), failed("missing"), defect="black"),
    ]
    found = [(one.variant, one.what, one.outcome, one.where) for one in words.troubles(results_of(rows))]
    assert found == [
        ("int4", "missing", "error", (("a", 0), ("b", 3), ("d", 0))),
        ("int4", "unreadable", "error", (("c", 0),)),
        (None, "black", None, (("d", 0),)),
    ]


def test_prompts_that_were_cut_are_listed() -> None:
    rows = [cut(row(prompt("a"), 30.0), "what is cut is 'red'."), row(prompt("b"), 30.0)]
    found = [(one.variant, one.what, one.outcome, one.where) for one in words.troubles(results_of(rows))]
    assert found == [("int4", "prompt cut", None, (("a", 0),))]


def test_the_noise_floor_is_told(results: Results) -> None:
    assert "to the bit (16 pairs)" in words.floor(results)
    assert "not measured" in words.floor(results.model_copy(update={"floor": None}))
    other = results.variants["int4"]
    assert "in 12 of 12 pairs" in words.floor(results.model_copy(update={"floor": other}))


def test_headline_scores_come_first() -> None:
    scores = [Score(name=name, title=name) for name in ("flip", "text_accuracy", "x", "clip_i", "psnr")]
    assert [score.name for score in words.in_order(scores)] == ["psnr", "clip_i", "text_accuracy", "flip", "x"]


def test_a_score_is_named_with_its_model_or_without() -> None:
    clip = Score(name="clip_i", title="CLIP-I [demo/clip d02e28c7]")
    against = truth_score(clip)
    assert (words.brief(clip), words.brief(against)) == ("CLIP-I", "CLIP-I to truth")
    assert words.brief(PSNR) == PSNR.title
    assert words.compared_with(clip, pair=True) == "variant against reference"
    assert words.compared_with(against, pair=False) == "each picture against the true one"
    assert words.compared_with(TEXT, pair=False) == "each picture by itself"
