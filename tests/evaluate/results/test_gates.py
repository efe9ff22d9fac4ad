from __future__ import annotations

import pytest
from helpers.result_rows import FLIP, PSNR, TEXT

from edgepress.common.errors import UserError
from edgepress.evaluate.metrics.base import (
    ImageMetric,
    Metric,
    MetricResult,
    PairMetric,
    Score,
    UnavailableMetric,
)
from edgepress.evaluate.metrics.registry import load_metrics
from edgepress.evaluate.results.gates import evaluate_gates, overall_verdict, resolve_gates
from edgepress.evaluate.results.schema import (
    DefectRecord,
    FailedPair,
    GateResult,
    ImageScoreSummary,
    PairScoreSummary,
    ScoreGroup,
    VariantSummary,
)
from edgepress.evaluate.stats.bootstrap import MeanCI

CLIP = Score(name="clip_i", title="CLIP-I")
METRICS = [
    PairMetric("psnr", (PSNR,), lambda: "1", lambda *_: {}, against_ground_truth=True),
    PairMetric("flip", (FLIP,), lambda: "1", lambda *_: {}),
    ImageMetric("text", (TEXT,), lambda: "1", lambda *_: MetricResult({}, {})),
    UnavailableMetric("clip_i", (CLIP,), "no weights were given"),
]


def make_mean(mean: float, low: float | None, high: float | None, num_prompts: int | None = None) -> MeanCI:
    return MeanCI(mean=mean, low=low, high=high, count=20, num_prompts=num_prompts)


def make_drop(drop: MeanCI, reference: float = 0.5) -> ImageScoreSummary:
    return ImageScoreSummary(
        reference=make_mean(reference, 0, 1), variant=make_mean(0, 0, 1), drop=drop, relative_drop=None
    )


def make_summary(
    pair_scores: dict[str, MeanCI] | None = None,
    image_scores: dict[str, ImageScoreSummary] | None = None,
    effects: dict[str, float] | None = None,
    **changes: object,
) -> VariantSummary:
    pair_summaries = {
        name: PairScoreSummary(mean=mean, worst=0, worst_prompt="a", worst_seed=0)
        for name, mean in (pair_scores or {}).items()
    }
    group = ScoreGroup(name="all", num_pairs=20, pair_scores=pair_summaries, image_scores=image_scores or {})
    return VariantSummary(
        num_pairs=20,
        num_prompts=20,
        num_identical=0,
        failures=(),
        defects=(),
        groups=(group,),
        mcnemar={},
        minimum_detectable_effect=effects or {},
        worst_pairs=(),
    ).model_copy(update=changes)


def evaluate(summary: VariantSummary, name: str, limit: float | str, has_ground_truth: bool = False) -> GateResult:
    specs = resolve_gates({name: limit}, METRICS, has_ground_truth)
    return next(gate for gate in evaluate_gates("int4", summary, specs) if gate.name == name)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(30.0, 32.0, "passed"), (29.9, 31.0, "inconclusive"), (27.0, 29.9, "failed"), (27.0, 30.0, "inconclusive")],
)
def test_the_worse_end_of_the_interval_decides(low: float, high: float, verdict: str) -> None:
    assert evaluate(make_summary({"psnr": make_mean(30, low, high)}), "psnr_min", 30).verdict == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.1, 0.2, "passed"), (0.1, 0.21, "inconclusive"), (0.21, 0.3, "failed")]
)
def test_scores_that_are_better_when_lower_have_a_maximum(low: float, high: float, verdict: str) -> None:
    assert evaluate(make_summary({"flip": make_mean(0.2, low, high)}), "flip_max", 0.2).verdict == verdict


@pytest.mark.parametrize(
    ("low", "high", "limit", "verdict"),
    [
        (-0.01, 0.02, 2, "passed"),  # 2 points are 0.02
        (0.0, 0.03, 2, "inconclusive"),
        (0.021, 0.03, 2, "failed"),
        (0.0, 0.02, "4%", "passed"),  # of a reference of 0.5
        (0.0, 0.03, "4%", "inconclusive"),
        (0.0201, 0.03, "4 %", "failed"),
    ],
)
def test_a_drop_is_limited_in_points_or_relative_to_the_reference(
    low: float, high: float, limit: float | str, verdict: str
) -> None:
    summary = make_summary(image_scores={"text_accuracy": make_drop(make_mean(0.02, low, high))})
    gate = evaluate(summary, "text_accuracy_drop", limit)
    assert gate.verdict == verdict
    assert gate.relative == isinstance(limit, str)


def test_all_numbers_of_a_relative_gate_are_fractions_of_the_reference() -> None:
    scores = {"text_accuracy": make_drop(make_mean(0.02, 0.01, 0.03))}
    gate = evaluate(make_summary(image_scores=scores, effects={"text_accuracy": 0.05}), "text_accuracy_drop", "8%")
    numbers = (gate.limit, gate.value, gate.low, gate.high, gate.minimum_detectable_effect)
    assert numbers == pytest.approx((0.08, 0.04, 0.02, 0.06, 0.1))


def test_a_pass_without_enough_power_says_so() -> None:
    scores = {"text_accuracy": make_drop(make_mean(0, 0, 0))}
    summary = make_summary(image_scores=scores, effects={"text_accuracy": 0.05})
    assert "too few prompts to detect" in evaluate(summary, "text_accuracy_drop", 2).reason
    assert evaluate(summary, "text_accuracy_drop", 6).reason == ""


def test_one_prompt_is_inconclusive() -> None:
    gate = evaluate(make_summary({"psnr": make_mean(99, None, None)}), "psnr_min", 30)
    assert (gate.verdict, gate.value) == ("inconclusive", 99)


@pytest.mark.parametrize(("low", "high"), [(39.0, 41.0), (9.0, 11.0)])
def test_fewer_than_ten_prompts_decide_nothing(low: float, high: float) -> None:
    """Their interval is too narrow: neither a pass nor a failure is reliable."""
    for num_prompts, verdict in ((9, "inconclusive"), (10, "passed" if low > 30 else "failed")):
        gate = evaluate(make_summary({"psnr": make_mean(30, low, high, num_prompts)}), "psnr_min", 30)
        assert gate.verdict == verdict
        assert ("interval of 9 prompts is not reliable" in gate.reason) == (num_prompts == 9)
    scores = {"text_accuracy": make_drop(make_mean(0.01, 0.0, 0.015, num_prompts=5))}
    for limit in (2, "4%"):
        assert evaluate(make_summary(image_scores=scores), "text_accuracy_drop", limit).verdict == "inconclusive"
    assert evaluate(make_summary(num_identical=20, num_prompts=2), "psnr_min", 30).verdict == "inconclusive"


def test_the_drop_of_a_pair_score_is_against_the_ground_truth() -> None:
    scores = {"truth_psnr": make_drop(make_mean(0.1, 0.05, 0.2), reference=20)}
    summary = make_summary({"psnr": make_mean(40, 39, 41)}, scores)
    assert evaluate(summary, "psnr_drop", 0.5, has_ground_truth=True).verdict == "passed"
    assert evaluate(summary, "psnr_drop", "0.5%", has_ground_truth=True).verdict == "inconclusive"
    without = evaluate(summary, "psnr_drop", 0.5)
    assert (without.verdict, without.value) == ("not measured", None)
    assert "pass them with --ground-truth" in without.reason


def test_a_metric_that_cannot_be_measured_does_not_pass() -> None:
    for name in ("clip_i_min", "clip_i_drop"):
        gate = evaluate(make_summary(), name, 1)
        assert (gate.verdict, gate.reason) == ("not measured", "no weights were given")


def test_a_score_that_no_pair_has_is_not_measured() -> None:
    assert evaluate(make_summary(), "psnr_min", 30).verdict == "not measured"
    scores = {"text_accuracy": make_drop(make_mean(0, 0, 0), reference=0)}
    gate = evaluate(make_summary(image_scores=scores), "text_accuracy_drop", "1%")
    assert (gate.verdict, gate.reason) == (
        "not measured",
        "a relative drop is undefined because the reference's mean is 0",
    )


def test_identical_pairs_pass_a_minimum_without_a_value() -> None:
    assert evaluate(make_summary(num_identical=20), "psnr_min", 30).verdict == "passed"


def test_no_pairs_never_pass() -> None:
    summary = make_summary(num_pairs=0, num_identical=0)
    for name in ("psnr_min", "text_accuracy_drop", "defects_max"):
        assert evaluate(summary, name, 100).verdict == "not measured"
    assert overall_verdict([], [summary]) == "not measured"


def test_new_defects_fail_if_there_are_gates() -> None:
    new = DefectRecord(prompt="a", seed=0, defect="black", new=True)
    old = DefectRecord(prompt="b", seed=0, defect="flat", new=False)
    specs = resolve_gates({"psnr_min": 30}, METRICS, False)
    gates = {gate.name: gate for gate in evaluate_gates("int4", make_summary(defects=(new, old)), specs)}
    assert (gates["defects_max"].verdict, gates["defects_max"].value) == ("failed", 1)
    assert evaluate(make_summary(defects=(new,)), "defects_max", 1).verdict == "passed"
    assert resolve_gates({}, METRICS, False) == ()


@pytest.mark.parametrize(
    ("name", "limit", "message"),
    [
        ("psnr_mim", 30, "Unknown gate 'psnr_mim': did you mean 'psnr_min'"),
        ("flip_min", 30, "did you mean 'flip_max'"),
        ("psnr_min", "3%", "'psnr_min' does not accept the percentage '3%'"),
        ("xyzzy", 1, "known: defects_max, psnr_min"),
    ],
)
def test_invalid_gates_are_rejected(name: str, limit: float | str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_gates({name: limit}, METRICS, False)


def load_all_metrics() -> list[Metric | UnavailableMetric]:
    metrics = load_metrics()
    return [*metrics.metrics, *metrics.unavailable]


@pytest.mark.parametrize(
    ("name", "limit", "message"),
    [
        (
            "ssim_min",
            95,
            r"'ssim_min' always fails: its limit is 95, and SSIM is 1 at most\. Give a limit from 0 to 1\.",
        ),
        ("clip_i_min", 1.01, "'clip_i_min' always fails: its limit is 1.01, and CLIP-I "),
        ("clip_t_drop", 1.5, "'clip_t_drop' never fails: its limit is 1.5, and CLIP-T "),
        ("flip_max", 2, "'flip_max' never fails: its limit is 2, and FLIP is 1 at most"),
        ("mae_max", 256, "'mae_max' never fails: its limit is 256, and MAE is 255 at most"),
        (
            "text_accuracy_drop",
            101,
            "'text_accuracy_drop' never fails: its limit is 101, and text accuracy is 100 at most",
        ),
    ],
)
def test_limits_that_no_score_reaches_are_rejected(name: str, limit: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_gates({name: limit}, load_all_metrics(), has_ground_truth=False)


def test_limits_at_the_ends_of_a_score_are_taken() -> None:
    gates = {"ssim_min": 1, "text_accuracy_drop": 100, "mae_max": 255, "psnr_min": 400}
    assert len(resolve_gates(gates, load_all_metrics(), has_ground_truth=False)) == 5


def test_a_gate_of_a_metric_that_is_not_selected_is_rejected() -> None:
    with pytest.raises(UserError, match=r"Only these metrics are measured: psnr\. Use --no-gates"):
        resolve_gates({"flip_max": 1}, METRICS[:1], False, ["psnr"])


def test_the_worst_verdict_counts() -> None:
    passed = evaluate(make_summary({"psnr": make_mean(40, 39, 41)}), "psnr_min", 30)
    inconclusive = evaluate(make_summary({"psnr": make_mean(30, 29, 31)}), "psnr_min", 30)
    failed = evaluate(make_summary({"psnr": make_mean(20, 19, 21)}), "psnr_min", 30)
    unmeasured = evaluate(make_summary(), "psnr_min", 30)
    incomplete = make_summary(failures=(FailedPair(prompt="a", seed=0, failure="missing"),))
    assert overall_verdict([], [make_summary()]) is None
    assert overall_verdict([passed], [make_summary()]) == "passed"
    assert overall_verdict([passed, inconclusive], [make_summary()]) == "inconclusive"
    assert overall_verdict([passed, inconclusive, unmeasured], [make_summary()]) == "not measured"
    assert overall_verdict([unmeasured, failed], [make_summary()]) == "failed"
    assert overall_verdict([passed], [make_summary(), incomplete]) == "not measured"
    assert overall_verdict([], [incomplete]) == "not measured"
