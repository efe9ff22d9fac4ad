"""Holds what was measured against the recipe's limits.

`<score>_drop`  the most that a picture score may lose against the reference; for a pair score, against the true picture
`<score>_min`   the least mean of a pair score that is better when higher; `<score>_max` for the others
`defects_max`   the most pictures that show nothing where the reference's show something; 0 where there are other gates

A gate passes when the bad end of the 95 % interval clears the limit, fails when the good end does not, and is
inconclusive otherwise, and with fewer than `FEWEST` prompts whatever the interval says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ...common.errors import UserError
from ...common.suggest import suggest_name
from ..metrics.base import ImageMetric, Metric, Score, UnavailableMetric, make_ground_truth_score
from ..stats.bootstrap import MeanCI
from .schema import GateResult, VariantSummary, Verdict

DEFECTS_GATE = "defects_max"
# The bootstrap's interval of few prompts is too narrow: of 2, 3, 5, 8 and 10 normal draws it held the mean in 50, 75,
# 84, 90 and 91 % of 1,500 cases instead of 95.
MIN_PROMPTS = 10


@dataclass(frozen=True)
class GateSpec:
    """One gate of a recipe. limit: in the unit that the score is kept in, or a fraction of the reference's mean.

    missing: why the score was not measured, or nothing.
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
    """The recipe's gates, looked up among the metrics' scores.

    Args:
        truth: whether there are true pictures.
        only: the metrics that were asked for, where not all were.

    Raises:
        UserError: there is no such gate.
    """
    known = _available_gates(metrics, has_ground_truth)
    for name in gates:
        if name not in known:
            among = (
                f" of what alone is measured, {', '.join(selected_metrics)} (--no-gates leaves all out)"
                if selected_metrics
                else ""
            )
            raise UserError(f"There is no gate {name!r}{among}; {_suggest_gate(name, list(known))}")
    if not gates:
        return ()
    return tuple(_with_limit(known[name], value) for name, value in ({DEFECTS_GATE: 0.0} | dict(gates)).items())


def evaluate_gates(variant: str, summary: VariantSummary, specs: Sequence[GateSpec]) -> tuple[GateResult, ...]:
    """What a variant makes of each limit."""
    return tuple(_evaluate_gate(variant, summary, limit) for limit in specs)


def overall_verdict(gates: Sequence[GateResult], variants: Iterable[VariantSummary]) -> Verdict | None:
    """The worst of all; pairs that failed leave it `not measured`. None where nothing failed and there are no gates."""
    found = {gate.verdict for gate in gates}
    if any(summary.failures or not summary.num_pairs for summary in variants):
        found.add("not measured")
    order: tuple[Verdict, ...] = ("failed", "not measured", "inconclusive", "passed")
    return next((verdict for verdict in order if verdict in found), None)


# ---------------------------------------------------------------- names


def _available_gates(metrics: Sequence[Metric | UnavailableMetric], truth: bool) -> dict[str, GateSpec]:
    """Every gate that there is, without its limit."""
    found = [GateSpec(DEFECTS_GATE, "defects", Score(name="defects", title="pictures that show nothing"), 0)]
    found += [
        limit for metric in metrics for score in metric.scores for limit in _gates_for_score(metric, score, truth)
    ]
    return {limit.name: limit for limit in found}


def _suggest_gate(name: str, known: Sequence[str]) -> str:
    """Another gate of the same score, or else the nearest name."""
    score = name.rpartition("_")[0]
    return suggest_name(name, [one for one in known if one.rpartition("_")[0] == score] or known)


def _gates_for_score(metric: Metric | UnavailableMetric, score: Score, truth: bool) -> list[GateSpec]:
    """The gates of a score; of one that cannot be measured here, all that it might have."""
    mean: Literal["min", "max"] = "min" if score.higher_is_better else "max"
    if isinstance(metric, ImageMetric):
        return [GateSpec(f"{score.name}_drop", "drop", score, 0)]
    if isinstance(metric, UnavailableMetric):
        return [
            GateSpec(f"{score.name}_{form}", form, score, 0, unmeasured_reason=metric.reason) for form in ("drop", mean)
        ]
    found = [GateSpec(f"{score.name}_{mean}", mean, score, 0)]
    if metric.against_ground_truth:
        without = "" if truth else "there are no true pictures; give them with --truth"
        found.append(
            GateSpec(f"{score.name}_drop", "drop", make_ground_truth_score(score), 0, unmeasured_reason=without)
        )
    return found


def _with_limit(known: GateSpec, value: float | str) -> GateSpec:
    """`2` is in the score's unit as it is shown, `2%` relative to the reference's mean.

    Raises:
        UserError: a limit of another form than a drop is relative.
    """
    if isinstance(value, str) and known.kind != "drop":
        raise UserError(f"The gate {known.name} is no drop and cannot be relative; write a number without %.")
    if isinstance(value, str):
        return replace(known, limit=float(value.rstrip("% ")) / 100, relative=True)
    return replace(known, limit=value / 100 if known.score.unit == "%" else value)


# ---------------------------------------------------------------- verdicts


def _evaluate_gate(variant: str, summary: VariantSummary, limit: GateSpec) -> GateResult:
    reason = limit.unmeasured_reason or ("" if summary.num_pairs else "no pair of pictures was compared")
    if reason:
        return _make_result(variant, limit, "not measured", reason)
    if limit.kind == "defects":
        return _evaluate_defects(variant, summary, limit)
    mean, unit = _select_mean(summary, limit)
    if mean is None and limit.kind == "min" and summary.num_identical == summary.num_pairs:
        few = _explain_few_prompts(summary.num_prompts)
        return _make_result(variant, limit, "inconclusive" if few else "passed", few or "all pairs are identical")
    if mean is None:
        return _make_result(variant, limit, "not measured", "no pair has this score")
    if unit is None:
        return _make_result(variant, limit, "not measured", "the reference's mean is 0, and no drop is a part of that")
    smallest = summary.minimum_detectable_effect.get(limit.score.name)
    return _evaluate_interval(variant, limit, _scale_mean(mean, unit), None if smallest is None else smallest / unit)


def _select_mean(summary: VariantSummary, limit: GateSpec) -> tuple[MeanCI | None, float | None]:
    """What the limit is about, if it was measured, and the unit that it is counted in; None: a reference of 0."""
    everything = summary.groups[0]
    if limit.kind != "drop":
        pair = everything.pair_scores.get(limit.score.name)
        return (pair.mean if pair else None), 1.0
    found = everything.image_scores.get(limit.score.name)
    if found is None:
        return None, 1.0
    return found.drop, (abs(found.reference.mean) or None) if limit.relative else 1.0


def _scale_mean(mean: MeanCI, unit: float) -> MeanCI:
    ends = [None if end is None else end / unit for end in (mean.low, mean.high)]
    return mean.model_copy(update={"mean": mean.mean / unit, "low": ends[0], "high": ends[1]})


def _explain_few_prompts(prompts: int | None) -> str:
    """Why so many prompts decide nothing, or nothing."""
    if prompts is None or prompts >= MIN_PROMPTS:
        return ""
    return f"the interval of {prompts} prompts is too narrow to be believed; give {MIN_PROMPTS} or more"


def _evaluate_interval(variant: str, limit: GateSpec, mean: MeanCI, smallest: float | None) -> GateResult:
    if mean.low is None or mean.high is None:
        return _make_result(variant, limit, "inconclusive", "one prompt alone has no interval", mean)
    if few := _explain_few_prompts(mean.num_prompts):
        return _make_result(variant, limit, "inconclusive", few, mean, smallest)
    sign = -1 if limit.kind == "min" else 1
    good, bad = sorted((sign * mean.low, sign * mean.high))
    if bad <= sign * limit.limit:
        weak = limit.kind == "drop" and (smallest or 0) > limit.limit
        reason = "so few prompts could not have shown a drop as small as the limit" if weak else ""
        return _make_result(variant, limit, "passed", reason, mean, smallest)
    if good > sign * limit.limit:
        return _make_result(variant, limit, "failed", "", mean, smallest)
    return _make_result(
        variant, limit, "inconclusive", "the interval holds the limit; give more prompts", mean, smallest
    )


def _evaluate_defects(variant: str, summary: VariantSummary, limit: GateSpec) -> GateResult:
    new = sum(defect.new for defect in summary.defects)
    found = MeanCI(mean=new, low=None, high=None, count=summary.num_pairs)
    return _make_result(variant, limit, "passed" if new <= limit.limit else "failed", "", found)


def _make_result(
    variant: str,
    limit: GateSpec,
    verdict: Verdict,
    reason: str,
    mean: MeanCI | None = None,
    detectable: float | None = None,
) -> GateResult:
    return GateResult(
        variant=variant,
        name=limit.name,
        score=limit.score.name,
        limit=limit.limit,
        relative=limit.relative,
        value=mean.mean if mean else None,
        low=mean.low if mean else None,
        high=mean.high if mean else None,
        verdict=verdict,
        reason=reason,
        minimum_detectable_effect=detectable,
    )
