"""Checks a variant's scores against the limits of the recipe.

`<score>_drop`  the largest drop of an image score against the reference; of a pair score: against the ground truth
`<score>_min`   the smallest mean of a pair score that is better when higher; `<score>_max` for the others
`defects_max`   the largest number of defective images whose reference is not; 0 if there are other gates

A gate passes if the worse end of the 95% confidence interval meets the limit, fails if the better end does not, and is
inconclusive otherwise. With fewer than `MIN_PROMPTS` prompts it is always inconclusive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ...common.errors import UserError
from ...common.suggest import suggest_name
from ..metrics.base import (
    GROUND_TRUTH_PREFIX,
    ImageMetric,
    Metric,
    Score,
    UnavailableMetric,
    make_ground_truth_score,
)
from ..stats.bootstrap import MeanCI
from .schema import GateResult, VariantSummary, Verdict

DEFECTS_GATE = "defects_max"
# The bootstrap interval of few prompts is too narrow: for 2, 3, 5, 8 and 10 normal draws it contained the mean in 50,
# 75, 84, 90 and 91% of 1,500 cases instead of 95%.
MIN_PROMPTS = 10
# The highest values that there can be, by score, in the unit in which it is stored.
HIGHEST_VALUES = {
    **dict.fromkeys(("ssim", "clip_i", "clip_t", "flip", "text_accuracy", "exact", "ned"), 1.0),
    "mae": 255.0,
}


@dataclass(frozen=True)
class GateSpec:
    """A gate of the recipe.

    Attributes:
        name: name of the gate, such as `psnr_min`.
        kind: what the gate limits.
        score: the score that it checks.
        limit: the limit, in the unit in which the score is stored, or as a fraction of the reference's mean.
        relative: whether the limit is such a fraction.
        unmeasured_reason: why the score cannot be measured, or empty.
    """

    name: str
    kind: Literal["drop", "min", "max", "defects"]
    score: Score
    limit: float
    relative: bool = False
    unmeasured_reason: str = ""


def resolve_gates(
    gates: Mapping[str, float | str],
    metrics: Sequence[Metric | UnavailableMetric],
    has_ground_truth: bool,
    selected_metrics: Sequence[str] = (),
) -> tuple[GateSpec, ...]:
    """Resolves the gates of a recipe against the scores of the metrics.

    Args:
        gates: limits by the name of the gate.
        metrics: all metrics, also those that cannot be measured.
        has_ground_truth: whether there are ground-truth images.
        selected_metrics: names of the metrics that the user selected; empty: all.

    Raises:
        UserError: a gate does not exist, or does not accept its limit.
    """
    available = _list_available_gates(metrics, has_ground_truth)
    for name in gates:
        if name not in available:
            message = f"Unknown gate {name!r}: {_suggest_gate(name, list(available))}"
            if selected_metrics:
                names = ", ".join(selected_metrics)
                message += f" Only these metrics are measured: {names}. Use --no-gates to ignore all gates."
            raise UserError(message)
    if not gates:
        return ()
    limits = {DEFECTS_GATE: 0.0} | dict(gates)
    return tuple(_set_limit(available[name], value) for name, value in limits.items())


def exclude_pair_scores(specs: Sequence[GateSpec], reason: str | None) -> tuple[GateSpec, ...]:
    """Gates of a variant whose images cannot be compared with the reference's.

    Args:
        specs: The gates.
        reason: Why they cannot be compared; None if they can.
    """
    kinds = ("min", "max")  # limits of pair scores
    return tuple(replace(spec, unmeasured_reason=reason) if reason and spec.kind in kinds else spec for spec in specs)


def evaluate_gates(variant: str, summary: VariantSummary, specs: Sequence[GateSpec]) -> tuple[GateResult, ...]:
    """Evaluates all gates for one variant."""
    return tuple(_evaluate_gate(variant, summary, spec) for spec in specs)


def overall_verdict(gates: Sequence[GateResult], variants: Iterable[VariantSummary]) -> Verdict | None:
    """Returns the worst verdict of all gates; failed pairs count as `not measured`.

    Returns:
        None if there are no gates and no failed pairs.
    """
    verdicts = {gate.verdict for gate in gates}
    if any(summary.failures or not summary.num_pairs for summary in variants):
        verdicts.add("not measured")
    worst_first: tuple[Verdict, ...] = ("failed", "not measured", "inconclusive", "passed")
    return next((verdict for verdict in worst_first if verdict in verdicts), None)


# ---------------------------------------------------------------- names


def _list_available_gates(metrics: Sequence[Metric | UnavailableMetric], has_ground_truth: bool) -> dict[str, GateSpec]:
    """Returns all gates by name, with a limit of 0."""
    gates = [GateSpec(DEFECTS_GATE, "defects", Score(name="defects", title="defective images"), 0)]
    for metric in metrics:
        for score in metric.scores:
            gates += _list_gates_of_score(metric, score, has_ground_truth)
    return {gate.name: gate for gate in gates}


def _list_gates_of_score(metric: Metric | UnavailableMetric, score: Score, has_ground_truth: bool) -> list[GateSpec]:
    """Returns the gates of a score; if its metric is unavailable, all that the score may have."""
    mean_kind: Literal["min", "max"] = "min" if score.higher_is_better else "max"
    if isinstance(metric, ImageMetric):
        return [GateSpec(f"{score.name}_drop", "drop", score, 0)]
    if isinstance(metric, UnavailableMetric):
        kinds: tuple[Literal["drop", "min", "max"], ...] = ("drop", mean_kind)
        return [GateSpec(f"{score.name}_{kind}", kind, score, 0, unmeasured_reason=metric.reason) for kind in kinds]
    gates = [GateSpec(f"{score.name}_{mean_kind}", mean_kind, score, 0)]
    if metric.against_ground_truth:
        reason = "" if has_ground_truth else "there are no ground-truth images; pass them with --ground-truth"
        spec = GateSpec(f"{score.name}_drop", "drop", make_ground_truth_score(score), 0, unmeasured_reason=reason)
        gates.append(spec)
    return gates


def _suggest_gate(name: str, available: Sequence[str]) -> str:
    """Suggests another gate of the same score, or else the nearest name."""
    score = name.rpartition("_")[0]
    return suggest_name(name, [gate for gate in available if gate.rpartition("_")[0] == score] or available)


def _set_limit(spec: GateSpec, value: float | str) -> GateSpec:
    """Sets the limit: `2` has the unit in which the score is displayed, `2%` is relative to the reference's mean.

    Raises:
        UserError: the limit is relative, but the gate does not limit a drop; or it is beyond all values of the score.
    """
    if isinstance(value, str) and spec.kind != "drop":
        raise UserError(
            f"The gate {spec.name!r} does not accept the percentage {value!r}: only *_drop gates do. Give a number."
        )
    if isinstance(value, str):
        return replace(spec, limit=float(value.rstrip("% ")) / 100, relative=True)
    unit = 100 if spec.score.unit == "%" else 1
    highest = HIGHEST_VALUES.get(spec.score.name.removeprefix(GROUND_TRUTH_PREFIX))
    if highest is not None and value / unit > highest:
        effect = "always fails" if spec.kind == "min" else "never fails"
        raise UserError(
            f"The gate {spec.name!r} {effect}: its limit is {value:g}, and {spec.score.title} is {unit * highest:g} at "
            f"most. Give a limit from 0 to {unit * highest:g}."
        )
    return replace(spec, limit=value / unit)


# ---------------------------------------------------------------- verdicts


def _evaluate_gate(variant: str, summary: VariantSummary, spec: GateSpec) -> GateResult:
    reason = spec.unmeasured_reason or ("" if summary.num_pairs else "no pair of images was compared")
    if reason:
        return _make_result(variant, spec, "not measured", reason)
    if spec.kind == "defects":
        return _evaluate_defects(variant, summary, spec)
    mean, unit = _select_mean(summary, spec)
    if mean is None and spec.kind == "min" and summary.num_identical == summary.num_pairs:
        too_few = _explain_too_few_prompts(summary.num_prompts)
        verdict: Verdict = "inconclusive" if too_few else "passed"
        return _make_result(variant, spec, verdict, too_few or "all pairs are identical")
    if mean is None:
        return _make_result(variant, spec, "not measured", "no pair has this score")
    if unit is None:
        return _make_result(
            variant, spec, "not measured", "a relative drop is undefined because the reference's mean is 0"
        )
    effect = summary.minimum_detectable_effect.get(spec.score.name)
    return _evaluate_interval(variant, spec, _scale_mean(mean, unit), None if effect is None else effect / unit)


def _select_mean(summary: VariantSummary, spec: GateSpec) -> tuple[MeanCI | None, float | None]:
    """Returns the mean that the gate limits, if it was measured, and its unit; None: the reference's mean is 0."""
    overall = summary.groups[0]
    if spec.kind != "drop":
        pair_summary = overall.pair_scores.get(spec.score.name)
        return (pair_summary.mean if pair_summary else None), 1.0
    image_summary = overall.image_scores.get(spec.score.name)
    if image_summary is None:
        return None, 1.0
    return image_summary.drop, (abs(image_summary.reference.mean) or None) if spec.relative else 1.0


def _scale_mean(mean: MeanCI, unit: float) -> MeanCI:
    low, high = (None if end is None else end / unit for end in (mean.low, mean.high))
    return mean.model_copy(update={"mean": mean.mean / unit, "low": low, "high": high})


def _explain_too_few_prompts(num_prompts: int | None) -> str:
    """Returns why so few prompts decide nothing; empty if there are enough."""
    if num_prompts is None or num_prompts >= MIN_PROMPTS:
        return ""
    return f"the interval of {num_prompts} prompts is not reliable; use at least {MIN_PROMPTS}"


def _evaluate_interval(variant: str, spec: GateSpec, mean: MeanCI, effect: float | None) -> GateResult:
    if mean.low is None or mean.high is None:
        return _make_result(variant, spec, "inconclusive", "a single prompt has no interval", mean)
    if too_few := _explain_too_few_prompts(mean.num_prompts):
        return _make_result(variant, spec, "inconclusive", too_few, mean, effect)
    sign = -1 if spec.kind == "min" else 1
    better, worse = sorted((sign * mean.low, sign * mean.high))
    if worse <= sign * spec.limit:
        underpowered = spec.kind == "drop" and (effect or 0) > spec.limit
        reason = "too few prompts to detect a drop as small as the limit" if underpowered else ""
        return _make_result(variant, spec, "passed", reason, mean, effect)
    if better > sign * spec.limit:
        return _make_result(variant, spec, "failed", "", mean, effect)
    return _make_result(
        variant, spec, "inconclusive", "the interval contains the limit; use more prompts", mean, effect
    )


def _evaluate_defects(variant: str, summary: VariantSummary, spec: GateSpec) -> GateResult:
    num_new = sum(defect.new for defect in summary.defects)
    count = MeanCI(mean=num_new, low=None, high=None, count=summary.num_pairs)
    return _make_result(variant, spec, "passed" if num_new <= spec.limit else "failed", "", count)


def _make_result(
    variant: str,
    spec: GateSpec,
    verdict: Verdict,
    reason: str,
    mean: MeanCI | None = None,
    effect: float | None = None,
) -> GateResult:
    return GateResult(
        variant=variant,
        name=spec.name,
        score=spec.score.name,
        limit=spec.limit,
        relative=spec.relative,
        value=mean.mean if mean else None,
        low=mean.low if mean else None,
        high=mean.high if mean else None,
        verdict=verdict,
        reason=reason,
        minimum_detectable_effect=effect,
    )
