"""Builds the score cards of the HTML report: mean, interval and distribution of each variant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..metrics.base import Score
from ..results.schema import ImageScoreSummary, PairScoreSummary, Results, ScoreGroup
from ..stats.bootstrap import MeanCI
from .charts import Histogram, build_histogram, get_common_range
from .formatting import index_scores
from .gallery import compute_loss


@dataclass(frozen=True)
class VariantStats:
    """What a card shows of one variant.

    Attributes:
        variant: name of the variant.
        summary: aggregates over all pairs.
        mean: the mean of a pair score, or the drop of an image score.
        histogram: distribution of the values or drops.
        minimum_detectable_effect: None if unknown.
        outcome_counts: of an image score, the number of pairs in which the variant is worse, equal, and better.
    """

    variant: str
    summary: PairScoreSummary | ImageScoreSummary
    mean: MeanCI
    histogram: Histogram
    minimum_detectable_effect: float | None
    outcome_counts: tuple[int, int, int] | None


@dataclass(frozen=True)
class ScoreCard:
    """The card of one score.

    Attributes:
        score: the score.
        is_pair_score: whether it compares the variant's image with the reference's.
        variants: the variants that have the score.
        noise_floor: the score of the reference's second run against its first.
    """

    score: Score
    is_pair_score: bool
    variants: tuple[VariantStats, ...]
    noise_floor: MeanCI | None


def build_cards(results: Results) -> list[ScoreCard]:
    """Builds a card for each score that any variant has."""
    cards = [_build_card(results, score) for score in index_scores(results).values()]
    return [card for card in cards if card.variants]


def _build_card(results: Results, score: Score) -> ScoreCard:
    values = {name: list(_iter_values(results, name, score)) for name in results.variants}
    limits = get_common_range([members for members in values.values() if members])
    stats = [_compute_stats(results, name, score, values[name], limits) for name in results.variants]
    return ScoreCard(
        score=score,
        is_pair_score=score in results.pair_scores,
        variants=tuple(variant for variant in stats if variant),
        noise_floor=_get_noise_floor(results, score),
    )


def _get_noise_floor(results: Results, score: Score) -> MeanCI | None:
    """Returns None if it was not measured, and if all images are identical, which the page says once for all scores."""
    floor = results.noise_floor
    if not floor or not floor.groups or floor.num_identical == floor.num_pairs:
        return None
    summary = get_summary(floor.groups[0], score)
    return get_primary_mean(summary) if summary else None


def _compute_stats(
    results: Results, variant: str, score: Score, values: Sequence[float], limits: tuple[float, float]
) -> VariantStats | None:
    """Returns None if the variant does not have the score."""
    variant_summary = results.variants[variant]
    summary = get_summary(variant_summary.groups[0], score) if variant_summary.groups else None
    if not summary:
        return None
    mean = get_primary_mean(summary)
    return VariantStats(
        variant=variant,
        summary=summary,
        mean=mean,
        histogram=build_histogram(values, limits, mean),
        minimum_detectable_effect=variant_summary.minimum_detectable_effect.get(score.name),
        outcome_counts=_count_outcomes(values) if isinstance(summary, ImageScoreSummary) else None,
    )


def get_summary(group: ScoreGroup, score: Score) -> PairScoreSummary | ImageScoreSummary | None:
    """Returns the summary of a score over a group; None if no pair of the group has the score."""
    return group.pair_scores.get(score.name) or group.image_scores.get(score.name)


def get_primary_mean(summary: PairScoreSummary | ImageScoreSummary) -> MeanCI:
    """Returns the mean of a pair score, or the drop of an image score."""
    return summary.mean if isinstance(summary, PairScoreSummary) else summary.drop


def _iter_values(results: Results, variant: str, score: Score) -> Iterator[float]:
    """Yields the values of a pair score, or the drops of an image score, of all samples that have it."""
    sign = -1 if score in results.pair_scores and score.higher_is_better else 1
    for sample in results.samples:
        loss = compute_loss(sample, variant, score)
        if loss is not None:
            yield sign * loss


def _count_outcomes(drops: Sequence[float]) -> tuple[int, int, int]:
    return sum(drop > 0 for drop in drops), sum(drop == 0 for drop in drops), sum(drop < 0 for drop in drops)


def is_worse_than_overall(group: ScoreGroup, overall: ScoreGroup, score: Score) -> bool:
    """Returns whether the whole interval of a group is worse than the mean of all pairs."""
    if score.name in group.pair_scores:
        mean, overall_mean = group.pair_scores[score.name].mean, overall.pair_scores[score.name].mean.mean
        better_end = mean.high if score.higher_is_better else mean.low
        if better_end is None:
            return False
        return better_end < overall_mean if score.higher_is_better else better_end > overall_mean
    drop = group.image_scores[score.name].drop
    return drop.low is not None and drop.low > overall.image_scores[score.name].drop.mean
