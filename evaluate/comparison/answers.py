"""What follows from a comparison, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

from ..report.costs import format_megabytes
from ..report.formatting import format_mean, format_score, pluralize
from ..results.gates import MIN_PROMPTS
from ..stats.bootstrap import MeanCI
from .schema import CandidateComparison, CandidateEntry

PSNR = "psnr"


def list_answers(comparison: CandidateComparison) -> Iterator[str]:
    """Yields the sentences, the most important first."""
    measured = [entry for entry in comparison.candidates if PSNR in entry.scores]
    yield from _describe_identical(comparison)
    if measured:
        yield from _describe_closest(comparison, measured)
    sized = [entry for entry in comparison.candidates if entry.system.weight_bytes is not None]
    if len(sized) > 1:
        yield _describe_smallest(comparison, min(sized, key=lambda entry: entry.system.weight_bytes or inf))
    front = [entry for entry in sized if entry.on_front]
    if len(front) < len(sized):
        beaten = [entry.name for entry in sized if not entry.on_front and PSNR in entry.scores]
        if beaten:
            yield f"For {_join(beaten)} another candidate is no larger and closer to the reference."
    yield from _describe_text(comparison)
    for entry in comparison.candidates:
        if entry.system.own_noise:
            yield f"{entry.name} was not compared with the reference's images: {entry.system.own_noise}."
        if entry.num_failures:
            yield f"{pluralize(entry.num_failures, 'pair')} of {entry.name} could not be compared."
    if comparison.num_prompts < MIN_PROMPTS:
        count = pluralize(comparison.num_prompts, "prompt")
        yield f"This is of {count} only: intervals of fewer than {MIN_PROMPTS} prompts are too narrow."


def _describe_identical(comparison: CandidateComparison) -> Iterator[str]:
    names = [e.name for e in comparison.candidates if e.num_pairs and e.num_identical == e.num_pairs]
    if names:
        yield f"All images of {_join(names)} equal the reference's in every pixel."


def _describe_closest(comparison: CandidateComparison, measured: Sequence[CandidateEntry]) -> Iterator[str]:
    score = next(score for score in comparison.score_list if score.name == PSNR)
    first, *rest = measured
    size = format_megabytes(first.system.weight_bytes)
    figures = [f"{format_mean(first.scores[PSNR].mean, score)} dB", *([f"{size} MB"] if size else [])]
    yield f"Closest to the reference is {first.name}: {', '.join(figures)}."
    alike = [entry.name for entry in rest if entry.gap and contains_zero(entry.gap)]
    if alike:
        yield f"{_join(alike)} cannot be distinguished from it: the interval of the paired difference contains 0."


def _describe_smallest(comparison: CandidateComparison, entry: CandidateEntry) -> str:
    text = f"The smallest is {entry.name}: {format_megabytes(entry.system.weight_bytes)} MB"
    if PSNR in entry.scores:
        score = next(score for score in comparison.score_list if score.name == PSNR)
        text += f", {format_mean(entry.scores[PSNR].mean, score)} dB"
        if entry.gap:
            text += f", {format_score(-entry.gap.mean, score)} dB behind the closest"
    return f"{text}."


def _describe_text(comparison: CandidateComparison) -> Iterator[str]:
    """Says which candidates lose text measurably."""
    for score in comparison.score_list:
        if score.name != "text_accuracy":
            continue
        drops = {
            entry.name: entry.scores[score.name].drop for entry in comparison.candidates if score.name in entry.scores
        }
        losing = [name for name, drop in drops.items() if drop and drop.low is not None and drop.low > 0]
        if losing:
            details = [f"{name} ({format_mean(drops[name], score)} points)" for name in losing]
            yield f"Text suffers measurably with {_join(details)}."
        else:
            yield "No candidate loses text accuracy measurably."


def contains_zero(difference: MeanCI) -> bool:
    """Whether the interval of a difference contains 0; not if there is no interval."""
    return difference.low is not None and difference.high is not None and difference.low <= 0 <= difference.high


def _join(names: Sequence[str]) -> str:
    """Names in a row: `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
