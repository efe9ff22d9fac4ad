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

from ..errors import UserError
from .bootstrap import Mean
from .registry import Metric, PictureMetric, Score, Unavailable, suggestion, truth_score
from .results import Gate, VariantSummary, Verdict

DEFECTS = "defects_max"
# The bootstrap's interval of few prompts is too narrow: of 2, 3, 5, 8 and 10 normal draws it held the mean in 50, 75,
# 84, 90 and 91 % of 1,500 cases instead of 95.
FEWEST = 10


@dataclass(frozen=True)
class Limit:
    """One gate of a recipe. limit: in the unit that the score is kept in, or a fraction of the reference's mean.

    missing: why the score was not measured, or nothing.
    """

    name: str
    form: Literal["drop", "min", "max", "defects"]
    score: Score
    limit: float
    relative: bool = False
    missing: str = ""


def limits_of(
    gates: Mapping[str, float | str],
    metrics: Sequence[Metric | Unavailable],
    truth: bool,
    only: Sequence[str] = (),
) -> tuple[Limit, ...]:
    """The recipe's gates, looked up among the metrics' scores.

    Args:
        truth: whether there are true pictures.
        only: the metrics that were asked for, where not all were.

    Raises:
        UserError: there is no such gate.
    """
    known = _known(metrics, truth)
    for name in gates:
        if name not in known:
            among = f" of what alone is measured, {', '.join(only)} (--no-gates leaves all out)" if only else ""
            raise UserError(f"There is no gate {name!r}{among}; {_meant(name, list(known))}")
    if not gates:
        return ()
    return tuple(_limit(known[name], value) for name, value in ({DEFECTS: 0.0} | dict(gates)).items())


def judge(variant: str, summary: VariantSummary, limits: Sequence[Limit]) -> tuple[Gate, ...]:
    """What a variant makes of each limit."""
    return tuple(_judged(variant, summary, limit) for limit in limits)


def verdict_of(gates: Sequence[Gate], variants: Iterable[VariantSummary]) -> Verdict | None:
    """The worst of all; pairs that failed leave it `not measured`. None where nothing failed and there are no gates."""
    found = {gate.verdict for gate in gates}
    if any(summary.failures or not summary.pictures for summary in variants):
        found.add("not measured")
    order: tuple[Verdict, ...] = ("failed", "not measured", "inconclusive", "passed")
    return next((verdict for verdict in order if verdict in found), None)


# ---------------------------------------------------------------- names


def _known(metrics: Sequence[Metric | Unavailable], truth: bool) -> dict[str, Limit]:
    """Every gate that there is, without its limit."""
    found = [Limit(DEFECTS, "defects", Score(name="defects", title="pictures that show nothing"), 0)]
    found += [limit for metric in metrics for score in metric.scores for limit in _forms(metric, score, truth)]
    return {limit.name: limit for limit in found}


def _meant(name: str, known: Sequence[str]) -> str:
    """Another gate of the same score, or else the nearest name."""
    score = name.rpartition("_")[0]
    return suggestion(name, [one for one in known if one.rpartition("_")[0] == score] or known)


def _forms(metric: Metric | Unavailable, score: Score, truth: bool) -> list[Limit]:
    """The gates of a score; of one that cannot be measured here, all that it might have."""
    mean: Literal["min", "max"] = "min" if score.higher_is_better else "max"
    if isinstance(metric, PictureMetric):
        return [Limit(f"{score.name}_drop", "drop", score, 0)]
    if isinstance(metric, Unavailable):
        return [Limit(f"{score.name}_{form}", form, score, 0, missing=metric.reason) for form in ("drop", mean)]
    found = [Limit(f"{score.name}_{mean}", mean, score, 0)]
    if metric.against_truth:
        without = "" if truth else "there are no true pictures; give them with --truth"
        found.append(Limit(f"{score.name}_drop", "drop", truth_score(score), 0, missing=without))
    return found


def _limit(known: Limit, value: float | str) -> Limit:
    """`2` is in the score's unit as it is shown, `2%` relative to the reference's mean.

    Raises:
        UserError: a limit of another form than a drop is relative.
    """
    if isinstance(value, str) and known.form != "drop":
        raise UserError(f"The gate {known.name} is no drop and cannot be relative; write a number without %.")
    if isinstance(value, str):
        return replace(known, limit=float(value.rstrip("% ")) / 100, relative=True)
    return replace(known, limit=value / 100 if known.score.unit == "%" else value)


# ---------------------------------------------------------------- verdicts


def _judged(variant: str, summary: VariantSummary, limit: Limit) -> Gate:
    reason = limit.missing or ("" if summary.pictures else "no pair of pictures was compared")
    if reason:
        return _gate(variant, limit, "not measured", reason)
    if limit.form == "defects":
        return _defects(variant, summary, limit)
    mean, unit = _mean(summary, limit)
    if mean is None and limit.form == "min" and summary.identical == summary.pictures:
        few = _few(summary.prompts)
        return _gate(variant, limit, "inconclusive" if few else "passed", few or "all pairs are identical")
    if mean is None:
        return _gate(variant, limit, "not measured", "no pair has this score")
    if unit is None:
        return _gate(variant, limit, "not measured", "the reference's mean is 0, and no drop is a part of that")
    smallest = summary.detectable.get(limit.score.name)
    return _by_interval(variant, limit, _scaled(mean, unit), None if smallest is None else smallest / unit)


def _mean(summary: VariantSummary, limit: Limit) -> tuple[Mean | None, float | None]:
    """What the limit is about, if it was measured, and the unit that it is counted in; None: a reference of 0."""
    everything = summary.groups[0]
    if limit.form != "drop":
        pair = everything.pairs.get(limit.score.name)
        return (pair.mean if pair else None), 1.0
    found = everything.scores.get(limit.score.name)
    if found is None:
        return None, 1.0
    return found.drop, (abs(found.reference.mean) or None) if limit.relative else 1.0


def _scaled(mean: Mean, unit: float) -> Mean:
    ends = [None if end is None else end / unit for end in (mean.low, mean.high)]
    return mean.model_copy(update={"mean": mean.mean / unit, "low": ends[0], "high": ends[1]})


def _few(prompts: int | None) -> str:
    """Why so many prompts decide nothing, or nothing."""
    if prompts is None or prompts >= FEWEST:
        return ""
    return f"the interval of {prompts} prompts is too narrow to be believed; give {FEWEST} or more"


def _by_interval(variant: str, limit: Limit, mean: Mean, smallest: float | None) -> Gate:
    if mean.low is None or mean.high is None:
        return _gate(variant, limit, "inconclusive", "one prompt alone has no interval", mean)
    if few := _few(mean.prompts):
        return _gate(variant, limit, "inconclusive", few, mean, smallest)
    sign = -1 if limit.form == "min" else 1
    good, bad = sorted((sign * mean.low, sign * mean.high))
    if bad <= sign * limit.limit:
        weak = limit.form == "drop" and (smallest or 0) > limit.limit
        reason = "so few prompts could not have shown a drop as small as the limit" if weak else ""
        return _gate(variant, limit, "passed", reason, mean, smallest)
    if good > sign * limit.limit:
        return _gate(variant, limit, "failed", "", mean, smallest)
    return _gate(variant, limit, "inconclusive", "the interval holds the limit; give more prompts", mean, smallest)


def _defects(variant: str, summary: VariantSummary, limit: Limit) -> Gate:
    new = sum(defect.new for defect in summary.defects)
    found = Mean(mean=new, low=None, high=None, count=summary.pictures)
    return _gate(variant, limit, "passed" if new <= limit.limit else "failed", "", found)


def _gate(
    variant: str,
    limit: Limit,
    verdict: Verdict,
    reason: str,
    mean: Mean | None = None,
    detectable: float | None = None,
) -> Gate:
    return Gate(
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
        detectable=detectable,
    )
