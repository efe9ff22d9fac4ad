from __future__ import annotations

from helpers.result_rows import (
    FLIP,
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
from rich.console import Console

from edgepress.evaluate.report.terminal import render
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


def render_text(results: Results, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(render(results))
    return capture.get()


def render_samples(*samples: SampleResult) -> str:
    return render_text(make_results(samples, image_scores=(TEXT,)))


def find_cells(text: str, start: str) -> list[str]:
    """The cells of the first line that starts like this."""
    line = next(line.strip() for line in text.splitlines() if line.strip().startswith(start))
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_scores_are_shown_with_their_intervals() -> None:
    text = render_samples(
        make_sample(make_prompt("a"), 30.0, (1.0, 0.5)),
        make_sample(make_prompt("b", "zh"), 20.0),
        make_sample(make_prompt("c"), None),
    )
    assert find_cells(text, "PSNR dB ↑") == ["PSNR dB ↑", "2", "25.00", "[20.00, 30.00]", "20.00", "b"]
    cells = find_cells(text, "text accuracy % ↑")
    assert cells[:6] == ["text accuracy % ↑", "3", "100.0", "83.3", "16.7", "16.7%"]
    assert cells[6].startswith("[0.0, ")
    assert "minimum detectable drop (80% power): text accuracy 46.7" in text
    assert "identical pairs: 1 of 3" in text
    assert "3 samples: 3 prompts × 1 seed, 96×64 pixels, 2 steps, float32" in text


def test_the_heading_names_the_engine_and_the_subset() -> None:
    simulated = make_identity().reference.model_copy(update={"engine": "simulated by rknn-toolkit2 2.5.0"})
    text = render_text(
        make_results(
            [make_sample(make_prompt("a"), 30.0)],
            identity=make_identity(variants={VARIANT: simulated}),
            prompt_subset=PromptSubset(total=70, limited_by="evaluation.count"),
        )
    )
    assert "int4  model, simulated by rknn-toolkit2 2.5.0" in text
    assert "1 sample: 1 of 70 prompts (evaluation.count) × 1 seed" in text


def test_mcnemars_test_is_shown_with_its_caveat() -> None:
    samples = [make_sample(make_prompt("a"), 30.0, (1, 0), seed=seed) for seed in range(2)]
    text = " ".join(render_text(make_results(samples)).split())
    assert "int4: exact text: only the reference is right in 2 pairs" in text
    assert "images of one prompt are counted as independent" in text


def test_it_fits_80_columns() -> None:
    samples = [make_sample(make_prompt("calibration-001"), 30.0, (1, 0)), make_sample(make_prompt("b"), 31.0)]
    text = render_text(make_results(samples), 80)
    assert find_cells(text, "PSNR dB ↑")[-1] == "calibration-001"
    assert find_cells(text, "text accuracy % ↑")[-2:] == ["50.0%", "[0.0, 100.0]"]


def test_small_groups_are_counted_but_not_shown() -> None:
    english = [make_sample(make_prompt(f"e{i}", "en"), 20.0 + i) for i in range(10)]
    chinese = [make_sample(make_prompt(f"z{i}", "zh"), 20.0 + i) for i in range(9)]
    text = render_samples(*english, *chinese)
    assert "language: en" in text
    assert "language: zh" not in text
    assert "1 group of fewer than 10 pairs not shown; see report.html" in text


def test_several_variants_are_listed_under_each_score_with_the_noise_floor() -> None:
    samples = []
    for name, value in (("a", 30.0), ("b", 40.0)):
        variants = {"int4": make_pair(value), "[w8]": make_pair(value + 5)}
        sample = make_sample_with(make_prompt(name), make_pair(0))
        samples.append(sample.model_copy(update={"variants": variants, "noise_floor": make_pair(None)}))
    repeats = [VariantPair(sample, sample.noise_floor) for sample in samples if sample.noise_floor]
    system = make_identity().reference
    text = render_text(
        make_results(
            samples,
            identity=make_identity(variants={"int4": system, "[w8]": system}),
            noise_floor=aggregate(repeats, (PSNR, FLIP), (TEXT,)),
        )
    )
    assert find_cells(text.partition("Fidelity")[2], "int4")[:3] == ["int4", "2", "35.00"]
    assert find_cells(text.partition("Fidelity")[2], "[w8]")[:3] == ["[w8]", "2", "40.00"]
    assert "noise floor" in text
    assert "[w8]: identical pairs: 0 of 2" in text


def test_markup_in_names_is_shown_literally() -> None:
    text = render_samples(*[make_sample(make_prompt("[red]x", kind="[b]"), 30.0, seed=seed) for seed in range(10)])
    assert "[red]x" in text
    assert "kind: [b]" in text


def test_a_score_that_was_not_measured_is_not_shown() -> None:
    text = render_samples(make_sample(make_prompt("a"), 30.0, (None, None)))
    assert "text accuracy" not in text
    assert "PSNR" in text


def test_failures_and_defects_are_listed() -> None:
    text = render_samples(
        make_sample_with(make_prompt("a"), make_pair(9.0, 0, defect="black")),
        make_sample_with(make_prompt("b"), make_failed_pair("size 1x2 instead of 3x4")),
        make_sample_with(make_prompt("c"), make_pair(9.0), defect="flat"),
    )
    assert "1 image of int4 defective\n  black: a, seed 0" in text
    assert "1 pair of int4 not compared\n  b, seed 0: size 1x2 instead of 3x4" in text
    assert "1 image of the reference defective\n  flat: c, seed 0" in text


def test_many_failures_are_counted() -> None:
    text = render_samples(*[make_sample_with(make_prompt(str(number)), make_failed_pair()) for number in range(14)])
    assert "14 pairs of int4 not compared" in text
    assert "and 4 more (see results.json)" in text


def make_gate(verdict: Verdict, **changes: object) -> GateResult:
    return GateResult(
        variant=VARIANT, name="text_accuracy_drop", score="text_accuracy", limit=0.02, relative=False, value=0.01,
        low=0.0, high=0.03, verdict=verdict, reason="", minimum_detectable_effect=None,
    ).model_copy(update=changes)  # fmt: skip


def test_gates_and_their_verdict() -> None:
    unmeasured = {"value": None, "low": None, "high": None}
    gates = (
        make_gate("inconclusive"),
        make_gate("not measured", name="clip_i_drop", score="clip_i", reason="no CLIP", **unmeasured),
        make_gate("failed", relative=True, limit=0.005),
        make_gate("passed", name="defects_max", score="defects", limit=0, value=0, low=None, high=None),
    )
    text = render_text(make_results([make_sample(make_prompt("a"), 30.0)], gates=gates, verdict="inconclusive"), 120)
    assert find_cells(text, "text_accuracy_drop") == [
        "text_accuracy_drop",
        "2.0 points",
        "1.0 points",
        "[0.0, 3.0]",
        "inconclusive",
    ]
    assert find_cells(text, "clip_i_drop")[2:] == ["not measured", "no CLIP"]
    assert "0.50%" in text
    assert find_cells(text, "defects_max") == ["defects_max", "0", "0", "passed"]
    assert "verdict: inconclusive (use more prompts" in text


def test_changes_since_the_baseline() -> None:
    mean = MeanCI(mean=1, low=0.5, high=1.5, count=7)
    change = ScoreChange(variant=VARIANT, score="psnr", baseline=30, current=31, change=mean)
    baseline = BaselineComparison(
        path="x", created="2026", edgepress="0", changes=(change,), only_baseline=(), only_current=()
    )
    text = render_text(make_results([make_sample(make_prompt("a"), 30.0)], baseline=baseline))
    assert find_cells(text, "int4: PSNR") == ["int4: PSNR dB ↑", "7", "30.00", "31.00", "+1.00", "[0.50, 1.50]"]


def test_truncated_prompts_are_listed() -> None:
    truncated = truncate_prompt(make_sample(make_prompt("a"), 30.0), "'red' was cut off.")
    text = render_text(make_results([truncated, make_sample(make_prompt("b"), 30.0)]))
    assert "1 prompt truncated for int4\n  a, seed 0: 'red' was cut off." in text


def test_unavailable_metrics_and_the_cost() -> None:
    costs = {
        "text": MetricCost(computed=4, cached=2, cpu_seconds=2.0),
        "psnr": MetricCost(computed=0, cached=0, cpu_seconds=0),
    }
    results = make_results(
        [make_sample(make_prompt("a"), 30.0)], metric_costs=costs, unavailable_metrics={"clip_i": "no weights"}
    )
    text = render_text(results)
    assert "not measured: clip_i (no weights)" in text
    assert "CPU time: text 2.0 s (4 results)\n2 results taken from the cache" in text
