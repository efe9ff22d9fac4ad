from __future__ import annotations

import pytest
from helpers.result_rows import (
    FLIP,
    PSNR,
    TEXT,
    VARIANT,
    failed_pair,
    make_identity,
    make_prompt,
    make_results,
    pair_result,
    sample_result,
    sample_with,
    truncate_prompt,
)
from rich.console import Console

from edgepress.evaluate.metrics.base import Score
from edgepress.evaluate.report import formatting
from edgepress.evaluate.report.terminal import interval, number, render
from edgepress.evaluate.results.aggregate import VariantPair, aggregate
from edgepress.evaluate.results.schema import (
    BaselineComparison,
    GateResult,
    MetricCost,
    PromptSubset,
    Results,
    SampleResult,
    ScoreChange,
    Verdict,
)
from edgepress.evaluate.stats.bootstrap import MeanCI


def shown(results: Results, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(render(results))
    return capture.get()


def of(*rows: SampleResult) -> str:
    return shown(make_results(rows, picture_scores=(TEXT,)))


def cells(text: str, start: str) -> list[str]:
    """The first line that starts so, split at wide gaps."""
    line = next(line.strip() for line in text.splitlines() if line.strip().startswith(start))
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_every_number_that_matters_is_shown() -> None:
    text = of(
        sample_result(make_prompt("a"), 30.0, (1.0, 0.5)),
        sample_result(make_prompt("b", "zh"), 20.0),
        sample_result(make_prompt("c"), None),
    )
    assert cells(text, "PSNR dB ↑") == ["PSNR dB ↑", "2", "25.00", "20.00 ... 30.00", "20.00", "b"]
    assert cells(text, "text accuracy % ↑")[:5] == ["text accuracy % ↑", "3", "100.0", "83.3", "16.7"]
    assert cells(text, "text accuracy % ↑")[5] == "16.7%"
    assert cells(text, "text accuracy % ↑")[6].startswith("0.0 ... ")
    assert "smallest drops that would be seen (80 % power): text accuracy 46.7" in text
    assert "identical pairs: 1 of 3" in text
    assert "96x64" in text


def test_the_heading_says_what_ran_an_npu_s_parts_and_what_was_left_out() -> None:
    simulated = make_identity().reference.model_copy(
        update={"kind": "rknn", "engine": "simulated by rknn-toolkit2 2.5.0"}
    )
    limited = PromptSubset(total=70, limited_by="evaluation.count")
    text = shown(
        make_results(
            [sample_result(make_prompt("a"), 30.0)],
            identity=make_identity(variants={VARIANT: simulated}),
            limited=limited,
        )
    )
    assert "int4  model, simulated by rknn-toolkit2 2.5.0" in text
    assert "1 pairs of pictures: 1 of 70 prompts (evaluation.count) x 1 seed" in text
    assert formatting.describe_system(simulated) == "RKNN artifact, simulated by rknn-toolkit2 2.5.0, float32"


def test_pictures_of_one_prompt_are_said_to_be_taken_as_independent() -> None:
    rows = [sample_result(make_prompt("a"), 30.0, (1, 0), seed=seed) for seed in range(2)]
    assert "pictures of one prompt taken as independent" in " ".join(shown(make_results(rows)).split())
    assert "taken as independent" not in " ".join(shown(make_results(rows[:1])).split())


def test_it_fits_a_terminal_of_80_columns() -> None:
    text = shown(
        make_results(
            [sample_result(make_prompt("calibration-001"), 30.0, (1, 0)), sample_result(make_prompt("b"), 31.0)]
        ),
        80,
    )
    assert cells(text, "PSNR dB ↑")[-1] == "calibration-001"
    assert cells(text, "text accuracy % ↑")[-2:] == ["50.0%", "0.0 ... 100.0"]


def test_groups_of_ten_pictures_are_shown_and_smaller_ones_counted() -> None:
    english = [sample_result(make_prompt(f"e{i}", "en"), 20.0 + i) for i in range(10)]
    chinese = [sample_result(make_prompt(f"z{i}", "zh"), 20.0 + i) for i in range(9)]
    text = of(*english, *chinese)
    assert "language: en" in text
    assert "language: zh" not in text
    assert "1 groups of fewer than 10 pictures" in text


def test_several_variants_stand_below_each_score_with_the_noise_floor() -> None:
    rows = []
    for name, value in (("a", 30.0), ("b", 40.0)):
        made = {"int4": pair_result(value), "[w8]": pair_result(value + 5)}
        rows.append(
            sample_with(make_prompt(name), pair_result(0)).model_copy(
                update={"variants": made, "floor": pair_result(None)}
            )
        )
    again = [VariantPair(one, one.floor) for one in rows if one.floor]
    subject = make_identity().reference
    text = shown(
        make_results(
            rows,
            identity=make_identity(variants={"int4": subject, "[w8]": subject}),
            floor=aggregate(again, (PSNR, FLIP), (TEXT,)),
        )
    )
    assert cells(text.partition("Fidelity")[2], "int4")[:3] == ["int4", "2", "35.00"]
    assert cells(text.partition("Fidelity")[2], "[w8]")[:3] == ["[w8]", "2", "40.00"]
    assert "noise floor" in text
    assert "[w8]: identical pairs: 0 of 2" in text


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    text = of(*[sample_result(make_prompt("[red]x", kind="[b]"), 30.0)] * 10)
    assert "[red]x" in text
    assert "kind: [b]" in text


def test_a_score_that_was_not_measured_is_not_shown() -> None:
    text = of(sample_result(make_prompt("a"), 30.0, (None, None)))
    assert "text accuracy" not in text
    assert "PSNR" in text


def test_failures_and_defects_are_named() -> None:
    text = of(
        sample_with(make_prompt("a"), pair_result(9.0, 0, defect="black")),
        sample_with(make_prompt("b"), failed_pair("size 1x2 instead of 3x4")),
        sample_with(make_prompt("c"), pair_result(9.0), defect="flat"),
    )
    assert "black: a, seed 0" in text
    assert "b, seed 0: size 1x2 instead of 3x4" in text
    assert "flat: c, seed 0" in text


def test_many_failures_are_counted() -> None:
    text = of(*[sample_with(make_prompt(str(number)), failed_pair()) for number in range(14)])
    assert "14 pairs of int4 were not compared" in text
    assert "and 4 more" in text


def gate(verdict: Verdict, **changed: object) -> GateResult:
    return GateResult(
        variant=VARIANT, name="text_accuracy_drop", score="text_accuracy", limit=0.02, relative=False, value=0.01,
        low=0.0, high=0.03, verdict=verdict, reason="", minimum_detectable_effect=None,
    ).model_copy(update=changed)  # fmt: skip


def test_gates_and_their_verdict() -> None:
    absent = gate("not measured", name="clip_i_drop", score="clip_i", value=None, low=None, high=None, reason="no CLIP")
    relative = gate("failed", relative=True, limit=0.005)
    defects = gate("passed", name="defects_max", score="defects", limit=0, value=0, low=None, high=None)
    gates = (gate("inconclusive"), absent, relative, defects)
    text = shown(make_results([sample_result(make_prompt("a"), 30.0)], gates=gates, verdict="inconclusive"), 120)
    assert cells(text, "text_accuracy_drop") == ["text_accuracy_drop", "2.0", "1.0", "0.0 ... 3.0", "inconclusive"]
    assert cells(text, "clip_i_drop")[2:] == ["not measured", "no CLIP"]
    assert "0.50% of ref." in text
    assert cells(text, "defects_max") == ["defects_max", "0", "0", "passed"]
    assert "verdict: inconclusive (more prompts" in text


def test_changes_since_the_baseline() -> None:
    change = ScoreChange(
        variant=VARIANT, score="psnr", baseline=30, current=31, change=MeanCI(mean=1, low=0.5, high=1.5, count=7)
    )
    baseline = BaselineComparison(
        path="x", created="2026", edgepress="0", changes=(change,), only_baseline=(), only_current=()
    )
    text = shown(make_results([sample_result(make_prompt("a"), 30.0)], baseline=baseline))
    assert cells(text, "int4: PSNR") == ["int4: PSNR dB ↑", "7", "30.00", "31.00", "1.00", "0.50 ... 1.50"]


def test_prompts_that_were_cut_are_listed() -> None:
    text = shown(
        make_results(
            [
                truncate_prompt(sample_result(make_prompt("a"), 30.0), "what is cut is 'red'."),
                sample_result(make_prompt("b"), 30.0),
            ]
        )
    )
    assert "1 prompts were cut for int4\n  a, seed 0: what is cut is 'red'." in text


def test_what_was_not_measured_and_what_reading_cost() -> None:
    costs = {
        "text": MetricCost(computed=4, cached=2, cpu_seconds=2.0),
        "psnr": MetricCost(computed=0, cached=0, cpu_seconds=0),
    }
    text = shown(
        make_results([sample_result(make_prompt("a"), 30.0)], costs=costs, unmeasured={"clip_i": "no weights"})
    )
    assert "not measured: clip_i (no weights)" in text
    assert "CPU seconds: text 2.0 (4 readings)\n2 readings were kept from earlier runs" in text


@pytest.mark.parametrize(
    ("value", "score", "expected"),
    [(0.5, TEXT, "50.0"), (31.256, PSNR, "31.26"), (-0.001, PSNR, "0.00"), (0.25, FLIP, "0.2500")],
)
def test_number(value: float, score: Score, expected: str) -> None:
    assert number(value, score) == expected


def test_interval() -> None:
    assert interval(MeanCI(mean=0.5, low=0.25, high=1, count=2), TEXT) == "25.0 ... 100.0"
    assert interval(MeanCI(mean=0.5, low=None, high=None, count=1), TEXT) == ""
