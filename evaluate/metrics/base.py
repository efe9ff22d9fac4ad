"""Base types of the metrics of an evaluation.

A metric is one module of this package with a function `create_metric(settings)`. It returns a `PairMetric`, an
`ImageMetric`, or an `UnavailableMetric` that says what is missing. `registry.load_metrics` finds new modules by itself.

A metric that is not defined for an image, such as SSIM for one that is smaller than its window, raises
`images.suitability.UnsuitableImageError`. Its scores are then None, and the reason is noted in the row.

Results are cached by image content, prompt text, language, expected lines, metric version and source code. Nothing else
may influence a metric. Metrics are called from several threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from ...prompts.prompt import Prompt
from ..images.types import ImageArray

GROUND_TRUTH_PREFIX = "truth_"  # score name prefix: the pair is the ground truth and a generated image

ScoreValues = dict[str, float | None]
"""Values by score name. None: the score does not apply to the image, such as text accuracy without text."""


@dataclass(frozen=True)
class MetricSettings:
    """Settings that metrics are created with.

    Attributes:
        clip: CLIP weights as given to `--clip`, or None to leave out the CLIP metrics.
        lpips: Folder of the LPIPS weights, or None to leave out LPIPS.
    """

    clip: str | None = None
    lpips: str | None = None


class Score(BaseModel):
    """A number that a metric computes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Name in results.json and in gates.")
    title: str = Field(description="Title in reports.")
    unit: str = Field(default="", description="Unit. `%`: values are fractions in 0..1 and are shown as per cent.")
    higher_is_better: bool = Field(default=True, description="Whether a higher value is better.")
    binary: bool = Field(default=False, description="Whether every value is 0 or 1.")


class MetricResult(NamedTuple):
    """What a metric computed for one image or pair.

    Attributes:
        values: Values by score name.
        notes: Evidence by name, such as the lines that OCR read. Under the name of a score: why it has no value.
    """

    values: ScoreValues
    notes: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class PairMetric:
    """A metric that compares a variant's image with the reference's.

    Attributes:
        name: Name of the metric, which is also the name of its module.
        scores: The scores that it computes.
        version: Returns everything outside the source code that results depend on, such as library versions.
        measure: Called with reference image, variant image and prompt.
        against_ground_truth: Whether generated images are also compared with ground-truth images, where these are
            given. `measure` is then called with ground truth, generated image and prompt, and the names of the scores
            start with `truth_`.
    """

    name: str
    scores: tuple[Score, ...]
    version: Callable[[], str]
    measure: Callable[[ImageArray, ImageArray, Prompt], ScoreValues]
    against_ground_truth: bool = False


@dataclass(frozen=True)
class ImageMetric:
    """A metric that scores a single image by its prompt. It is applied to the reference and to all variants.

    Attributes:
        name: Name of the metric, which is also the name of its module.
        scores: The scores that it computes.
        version: Returns everything outside the source code that results depend on, such as library versions.
        measure: Called with image and prompt.
    """

    name: str
    scores: tuple[Score, ...]
    version: Callable[[], str]
    measure: Callable[[ImageArray, Prompt], MetricResult]


@dataclass(frozen=True)
class UnavailableMetric:
    """A metric that cannot be computed, because a package or weights are missing.

    Attributes:
        name: Name of the metric.
        scores: The scores that it would compute.
        reason: What is missing and how to provide it, without a final period.
    """

    name: str
    scores: tuple[Score, ...]
    reason: str


Metric = PairMetric | ImageMetric


def list_pair_scores(metrics: Sequence[Metric | UnavailableMetric]) -> tuple[Score, ...]:
    """Returns the scores that compare a variant's image with the reference's."""
    return tuple(score for metric in metrics if isinstance(metric, PairMetric) for score in metric.scores)


def list_image_scores(metrics: Sequence[Metric], ground_truth: bool = False) -> tuple[Score, ...]:
    """Returns the scores of single images.

    Args:
        metrics: The metrics.
        ground_truth: Whether there are ground-truth images. If so, the scores against these come first.
    """
    pair_metrics = [m for m in metrics if isinstance(m, PairMetric) and m.against_ground_truth and ground_truth]
    image_scores = [score for metric in metrics if isinstance(metric, ImageMetric) for score in metric.scores]
    return (*(make_ground_truth_score(score) for metric in pair_metrics for score in metric.scores), *image_scores)


def make_ground_truth_score(score: Score) -> Score:
    """Returns the score of a generated image against the ground truth, for a score of image pairs."""
    title = f"{score.title} to ground truth"
    return score.model_copy(update={"name": GROUND_TRUTH_PREFIX + score.name, "title": title})
