from __future__ import annotations

import pytest
from helpers.result_rows import FLIP, PSNR, TEXT

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
        (None, FLIP, True, ""),
    ],
)
def test_scores(value: float | None, score: Score, signed: bool, text: str) -> None:
    assert formatting.format_score(value, score, signed) == text


def test_percentages_and_counts() -> None:
    assert formatting.format_percent(0.1666) == "16.7%"
    assert formatting.format_percent(-0.005, 2) == "\u22120.50%"
    assert formatting.format_percent(None) == ""
    assert [formatting.pluralize(count, "pair") for count in (0, 1, 1200)] == ["0 pairs", "1 pair", "1,200 pairs"]


def test_intervals() -> None:
    assert formatting.format_interval(MeanCI(mean=0, low=-0.01, high=0.5, count=2), TEXT) == "[\u22121.0, 50.0]"
    assert formatting.format_interval(MeanCI(mean=0, low=None, high=None, count=1), TEXT) == ""
    assert formatting.format_mean(MeanCI(mean=3, low=2, high=4, count=2), PSNR) == "3.00 [2.00, 4.00]"
    assert formatting.format_mean(MeanCI(mean=3, low=None, high=None, count=1), PSNR) == "3.00"
    assert formatting.format_mean(None, PSNR) == ""


def test_gates(results: Results) -> None:
    titles = [formatting.format_gate(gate, results) for gate in results.gates[:5]]
    assert titles == [
        "new defective images ≤ 0",
        "PSNR ≥ 36.00 dB",
        "text accuracy drop ≤ 2.0 points",
        "exact text drop ≤ 30.00%",
        "psnr_drop ≤ 1",
    ]
    psnr = results.gates[1]
    assert formatting.format_gate_interval(psnr, results).startswith("[")
    assert formatting.format_gate_value(psnr.value, psnr, results).endswith(" dB")
    relative = results.gates[3]
    assert formatting.format_gate_value(relative.value, relative, results) == "41.67%"
    assert formatting.format_gate_interval(relative, results) == "[7.14, 71.43]"
    assert "no ground-truth images" in formatting.format_gate_remarks(results.gates[4], results)


def test_headline_scores_come_first() -> None:
    scores = [Score(name=name, title=name) for name in ("flip", "text_accuracy", "x", "clip_i", "psnr")]
    assert [score.name for score in formatting.order_scores(scores)] == ["psnr", "clip_i", "text_accuracy", "flip", "x"]


def test_the_short_title_omits_the_model() -> None:
    clip = Score(name="clip_i", title="CLIP-I [demo/clip d02e28c7]")
    assert formatting.get_short_title(clip) == "CLIP-I"
    assert formatting.get_short_title(make_ground_truth_score(clip)).startswith("CLIP-I ")
    assert "[" not in formatting.get_short_title(make_ground_truth_score(clip))
    assert formatting.get_short_title(PSNR) == PSNR.title


def test_the_label_has_the_unit_and_the_better_direction() -> None:
    assert (formatting.format_label(PSNR), formatting.format_label(FLIP)) == ("PSNR dB ↑", "FLIP ↓")
