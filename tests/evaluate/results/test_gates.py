from __future__ import annotations

import pytest
from helpers.result_rows import FLIP, PSNR, TEXT

from edgepress.common.errors import UserError
from edgepress.evaluate.metrics.base import ImageMetric, MetricResult, PairMetric, Score, UnavailableMetric
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


def mean(middle: float, low: float | None, high: float | None) -> MeanCI:
    return MeanCI(mean=middle, low=low, high=high, count=20)


def drop(middle: float, low: float | None, high: float | None, reference: float = 0.5) -> ImageScoreSummary:
    return ImageScoreSummary(
        reference=mean(reference, 0, 1), variant=mean(0, 0, 1), drop=mean(middle, low, high), relative_drop=None
    )


def summary(
    pairs: dict[str, MeanCI] | None = None,
    scores: dict[str, ImageScoreSummary] | None = None,
    detectable: dict[str, float] | None = None,
    **changed: object,
) -> VariantSummary:
    compared = {
        name: PairScoreSummary(mean=one, worst=0, worst_prompt="a", worst_seed=0) for name, one in (pairs or {}).items()
    }
    return VariantSummary(
        num_pairs=20,
        num_prompts=20,
        num_identical=0,
        failures=(),
        defects=(),
        groups=(ScoreGroup(name="all", num_pairs=20, pair_scores=compared, image_scores=scores or {}),),
        mcnemar={},
        minimum_detectable_effect=detectable or {},
        worst_pairs=(),
    ).model_copy(update=changed)


def gate(made: VariantSummary, name: str, limit: float | str, truth: bool = False) -> GateResult:
    found = {one.name: one for one in evaluate_gates("int4", made, resolve_gates({name: limit}, METRICS, truth))}
    return found[name]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(30.0, 32.0, "passed"), (29.9, 31.0, "inconclusive"), (27.0, 29.9, "failed"), (27.0, 30.0, "inconclusive")],
)
def test_the_bad_end_of_a_mean_decides(low: float, high: float, verdict: str) -> None:
    assert gate(summary({"psnr": mean(30, low, high)}), "psnr_min", 30).verdict == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.1, 0.2, "passed"), (0.1, 0.21, "inconclusive"), (0.21, 0.3, "failed")]
)
def test_scores_that_are_better_when_lower_have_a_maximum(low: float, high: float, verdict: str) -> None:
    assert gate(summary({"flip": mean(0.2, low, high)}), "flip_max", 0.2).verdict == verdict


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
def test_a_drop_is_limited_in_points_or_by_the_reference(
    low: float, high: float, limit: float | str, verdict: str
) -> None:
    found = gate(summary(scores={"text_accuracy": drop(0.02, low, high)}), "text_accuracy_drop", limit)
    assert found.verdict == verdict
    assert found.relative == isinstance(limit, str)


def test_a_relative_gate_says_everything_in_fractions_of_the_reference() -> None:
    made = summary(scores={"text_accuracy": drop(0.02, 0.01, 0.03)}, detectable={"text_accuracy": 0.05})
    found = gate(made, "text_accuracy_drop", "8%")
    assert (found.limit, found.value, found.low, found.high, found.minimum_detectable_effect) == pytest.approx(
        (0.08, 0.04, 0.02, 0.06, 0.1)
    )


def test_a_pass_that_so_few_prompts_could_not_deny_says_so() -> None:
    made = summary(scores={"text_accuracy": drop(0, 0, 0)}, detectable={"text_accuracy": 0.05})
    assert "could not have shown" in gate(made, "text_accuracy_drop", 2).reason
    assert gate(made, "text_accuracy_drop", 6).reason == ""


def test_one_prompt_is_inconclusive() -> None:
    found = gate(summary({"psnr": mean(99, None, None)}), "psnr_min", 30)
    assert (found.verdict, found.value) == ("inconclusive", 99)


@pytest.mark.parametrize(("low", "high"), [(39.0, 41.0), (9.0, 11.0)])
def test_fewer_than_ten_prompts_decide_nothing(low: float, high: float) -> None:
    """Their interval is too narrow; neither a pass nor a failure can be believed."""
    for prompts, verdict in ((9, "inconclusive"), (10, "passed" if low > 30 else "failed")):
        few = mean(30, low, high).model_copy(update={"prompts": prompts})
        found = gate(summary({"psnr": few}), "psnr_min", 30)
        assert found.verdict == verdict
        assert ("interval of 9 prompts is too narrow" in found.reason) == (prompts == 9)
    few = mean(0.01, 0.0, 0.015).model_copy(update={"prompts": 5})
    lost = drop(0, 0, 0).model_copy(update={"drop": few})
    for limit in (2, "4%"):
        assert gate(summary(scores={"text_accuracy": lost}), "text_accuracy_drop", limit).verdict == "inconclusive"
    assert gate(summary(identical=20, prompts=2), "psnr_min", 30).verdict == "inconclusive"


def test_the_drop_of_a_pair_score_is_that_against_the_true_pictures() -> None:
    made = summary({"psnr": mean(40, 39, 41)}, {"truth_psnr": drop(0.1, 0.05, 0.2, reference=20)})
    assert gate(made, "psnr_drop", 0.5, truth=True).verdict == "passed"
    assert gate(made, "psnr_drop", "0.5%", truth=True).verdict == "inconclusive"
    without = gate(made, "psnr_drop", 0.5)
    assert (without.verdict, without.value) == ("not measured", None)
    assert "give them with --truth" in without.reason


def test_a_metric_that_cannot_be_measured_is_no_pass() -> None:
    for name in ("clip_i_min", "clip_i_drop"):
        assert (gate(summary(), name, 1).verdict, gate(summary(), name, 1).reason) == (
            "not measured",
            "no weights were given",
        )


def test_a_score_that_no_pair_has_is_not_measured() -> None:
    assert gate(summary(), "psnr_min", 30).verdict == "not measured"
    none = gate(summary(scores={"text_accuracy": drop(0, 0, 0, 0.0)}), "text_accuracy_drop", "1%")
    assert (none.verdict, none.reason) == ("not measured", "the reference's mean is 0, and no drop is a part of that")


def test_identical_pairs_pass_a_minimum_that_they_have_no_number_for() -> None:
    assert gate(summary(identical=20), "psnr_min", 30).verdict == "passed"


def test_no_pairs_never_pass() -> None:
    nothing = summary(pictures=0, identical=0)
    for name in ("psnr_min", "text_accuracy_drop", "defects_max"):
        assert gate(nothing, name, 100).verdict == "not measured"
    assert overall_verdict([], [nothing]) == "not measured"


def test_pictures_that_show_nothing_fail_where_there_are_gates() -> None:
    new = DefectRecord(prompt="a", seed=0, defect="black", new=True)
    old = DefectRecord(prompt="b", seed=0, defect="flat", new=False)
    limits = resolve_gates({"psnr_min": 30}, METRICS, False)
    found = {one.name: one for one in evaluate_gates("int4", summary(defects=(new, old)), limits)}
    assert (found["defects_max"].verdict, found["defects_max"].value) == ("failed", 1)
    assert gate(summary(defects=(new,)), "defects_max", 1).verdict == "passed"
    assert resolve_gates({}, METRICS, False) == ()


@pytest.mark.parametrize(
    ("name", "limit", "sentence"),
    [
        ("psnr_mim", 30, "no gate 'psnr_mim'; did you mean 'psnr_min'"),
        ("flip_min", 30, "did you mean 'flip_max'"),
        ("psnr_min", "3%", "is no drop and cannot be relative"),
        ("xyzzy", 1, "known: defects_max, psnr_min"),
    ],
)
def test_gates_that_cannot_be_are_refused(name: str, limit: float | str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        resolve_gates({name: limit}, METRICS, False)


def test_the_worst_verdict_counts() -> None:
    passed = gate(summary({"psnr": mean(40, 39, 41)}), "psnr_min", 30)
    doubtful = gate(summary({"psnr": mean(30, 29, 31)}), "psnr_min", 30)
    failed = gate(summary({"psnr": mean(20, 19, 21)}), "psnr_min", 30)
    unmeasured = gate(summary(), "psnr_min", 30)
    incomplete = summary(failures=(FailedPair(prompt="a", seed=0, failure="missing"),))
    assert overall_verdict([], [summary()]) is None
    assert overall_verdict([passed], [summary()]) == "passed"
    assert overall_verdict([passed, doubtful], [summary()]) == "inconclusive"
    assert overall_verdict([passed, doubtful, unmeasured], [summary()]) == "not measured"
    assert overall_verdict([unmeasured, failed], [summary()]) == "failed"
    assert overall_verdict([passed], [summary(), incomplete]) == "not measured"
    assert overall_verdict([], [incomplete]) == "not measured"
