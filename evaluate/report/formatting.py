"""Formats numbers, scores and gates. All reports use these functions, so that a number looks the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..metrics.base import GROUND_TRUTH_PREFIX, Score
from ..results.gates import DEFECTS_GATE
from ..results.schema import GateResult, Results
from ..stats.bootstrap import MeanCI

HEADLINE_SCORES = ("psnr", "clip_i", "text_accuracy")  # shown before all others
MINUS_SIGN = "\u2212"
MODEL_SUFFIX = re.compile(r" \[[^\]]*\]")  # in the title of a score


# ---------------------------------------------------------------- numbers


def format_number(value: float, digits: int, signed: bool = False) -> str:
    """Formats a number with a true minus sign; a value that rounds to 0 has no sign.

    Args:
        value: the number.
        digits: decimal places.
        signed: whether positive numbers get a plus sign.
    """
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return (MINUS_SIGN if value < 0 else "+" if signed else "") + text


def format_percent(fraction: float | None, digits: int = 1) -> str:
    """Formats a fraction as a percentage, such as `16.7%`; None is empty."""
    return "" if fraction is None else f"{format_number(100 * fraction, digits)}%"


def format_range(low: str, high: str) -> str:
    """Formats an interval: the one notation of all reports."""
    return f"[{low}, {high}]"


def pluralize(count: int, noun: str) -> str:
    """Formats a count with its noun, such as `1 pair` and `1,200 pairs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# ---------------------------------------------------------------- scores


def get_display_format(score: Score) -> tuple[float, int]:
    """Returns the factor by which a score is multiplied for display, and the number of decimal places."""
    if score.unit == "%":
        return 100.0, 1
    return 1.0, 2 if score.unit == "dB" else 4


def format_score(value: float | None, score: Score, signed: bool = False) -> str:
    """Formats a value of a score without its unit, which the score's label has; None is empty."""
    if value is None:
        return ""
    factor, digits = get_display_format(score)
    return format_number(factor * value, digits, signed)


def format_interval(mean: MeanCI, score: Score) -> str:
    """Formats the 95% confidence interval, such as `[20.00, 30.00]`; empty if there is none."""
    if mean.low is None or mean.high is None:
        return ""
    return format_range(format_score(mean.low, score), format_score(mean.high, score))


def format_mean(mean: MeanCI | None, score: Score) -> str:
    """Formats a mean and its interval; None is empty."""
    return f"{format_score(mean.mean, score)} {format_interval(mean, score)}".rstrip() if mean else ""


def format_label(score: Score) -> str:
    """Formats the title of a score with its unit and an arrow in the direction that is better."""
    arrow = "↑" if score.higher_is_better else "↓"
    return " ".join(part for part in (score.title, score.unit, arrow) if part)


def get_short_title(score: Score) -> str:
    """Returns the title without the name of the model that the score depends on."""
    return MODEL_SUFFIX.sub("", score.title)


def uses_ground_truth(score: Score) -> bool:
    """Returns whether a score compares an image with the ground truth."""
    return score.name.startswith(GROUND_TRUTH_PREFIX)


def order_scores(scores: Sequence[Score]) -> list[Score]:
    """Sorts scores for display: those of `HEADLINE_SCORES` first, the others in their order."""
    ranks = {name: rank for rank, name in enumerate(HEADLINE_SCORES)}
    return sorted(scores, key=lambda score: ranks.get(score.name, len(ranks)))


def index_scores(results: Results) -> dict[str, Score]:
    """Returns all scores of the results by name, in the order of display."""
    return {score.name: score for score in order_scores((*results.pair_scores, *results.image_scores))}


# ---------------------------------------------------------------- gates


def format_gate(gate: GateResult, results: Results) -> str:
    """Formats what a gate requires, such as `text accuracy drop ≤ 2.0 points`."""
    score = index_scores(results).get(gate.score)
    if gate.name == DEFECTS_GATE:
        subject = "new defective images"
    elif score is None:
        subject = gate.name
    else:
        subject = f"{score.title} drop" if gate.name.endswith("_drop") else score.title
    return f"{subject} {'≥' if is_minimum(gate) else '≤'} {format_gate_value(gate.limit, gate, results)}"


def is_minimum(gate: GateResult) -> bool:
    """Returns whether the limit is the smallest value that passes; otherwise it is the largest."""
    return gate.name.endswith("_min")


def format_gate_value(value: float | None, gate: GateResult, results: Results) -> str:
    """Formats a limit or value of a gate with its unit; None is empty.

    A relative value is a percentage of the reference's mean. Points are percentage points of a score.
    """
    if value is None:
        return ""
    number = _format_gate_number(value, gate, results)
    if gate.relative:
        return f"{number}%"
    score = index_scores(results).get(gate.score)
    unit = score.unit if score else ""
    return f"{number} {'points' if unit == '%' and gate.name.endswith('_drop') else unit}".rstrip()


def format_gate_interval(gate: GateResult, results: Results) -> str:
    """Formats the interval of a gate's value without its unit; empty if there is none."""
    if gate.low is None or gate.high is None:
        return ""
    low, high = (_format_gate_number(end, gate, results) for end in (gate.low, gate.high))
    return format_range(low, high)


def _format_gate_number(value: float, gate: GateResult, results: Results) -> str:
    if gate.relative:
        return format_number(100 * value, 2)
    score = index_scores(results).get(gate.score)
    return format_score(value, score) if score else f"{value:g}"


def format_gate_remarks(gate: GateResult, results: Results) -> str:
    """Formats the reason of the verdict and the minimum detectable effect."""
    effect = format_gate_value(gate.minimum_detectable_effect, gate, results)
    remarks = [gate.reason, f"minimum detectable effect: {effect}" if effect else ""]
    return "; ".join(remark for remark in remarks if remark)
