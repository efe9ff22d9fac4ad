"""TODO"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from ...prompts.prompt import Prompt
from ..images.types import ImageArray

ScoreValues = dict[str, float | None]  # by the score's name; None: not measured on this picture


GROUND_TRUTH_PREFIX = "truth_"  # before the name of a pair score: that of the true picture and a painted one


@dataclass(frozen=True)
class MetricSettings:
    """What metrics need to know. clip: which CLIP, as `--clip` says; lpips: the folder of its weights; None: none."""

    clip: str | None = None
    lpips: str | None = None


class Score(BaseModel):
    """One number that a metric gives. A `%` is kept as a fraction in 0..1 and shown as per cent; `binary`: 0 or 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    unit: str = ""
    higher_is_better: bool = True
    binary: bool = False


class MetricResult(NamedTuple):
    """What a metric found in one picture, and the evidence for it, such as the lines that were read."""

    values: ScoreValues
    notes: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class PairMetric:
    """Compares the variant's picture with the reference's: `measure(reference, variant, prompt)`.

    against_truth: whether painted pictures are also compared with the true one where it is given:
    `measure(truth, painted, prompt)`, whose scores are called `truth_<score>`.
    """

    name: str
    scores: tuple[Score, ...]
    version: Callable[[], str]
    measure: Callable[[ImageArray, ImageArray, Prompt], ScoreValues]
    against_ground_truth: bool = False


@dataclass(frozen=True)
class ImageMetric:
    """Judges one picture by its prompt, the reference's and the variant's alike: `measure(picture, prompt)`."""

    name: str
    scores: tuple[Score, ...]
    version: Callable[[], str]
    measure: Callable[[ImageArray, Prompt], MetricResult]


@dataclass(frozen=True)
class UnavailableMetric:
    """A metric that cannot be measured here; `reason` says what it lacks and how to give it, without a full stop."""

    name: str
    scores: tuple[Score, ...]
    reason: str


Metric = PairMetric | ImageMetric


def list_pair_scores(metrics: Sequence[Metric | UnavailableMetric]) -> tuple[Score, ...]:
    """What compares the variant with the reference."""
    return tuple(score for metric in metrics if isinstance(metric, PairMetric) for score in metric.scores)


def list_image_scores(metrics: Sequence[Metric], ground_truth: bool = False) -> tuple[Score, ...]:
    """What judges a picture alone; with `truth` also what compares it with the true one."""
    compared = [
        metric for metric in metrics if isinstance(metric, PairMetric) and metric.against_ground_truth and ground_truth
    ]
    alone = [score for metric in metrics if isinstance(metric, ImageMetric) for score in metric.scores]
    return (*(make_ground_truth_score(score) for metric in compared for score in metric.scores), *alone)


def make_ground_truth_score(score: Score) -> Score:
    """The score of a painted picture against the true one."""
    return score.model_copy(update={"name": GROUND_TRUTH_PREFIX + score.name, "title": f"{score.title} to truth"})
