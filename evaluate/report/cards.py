"""What the page says of each score: a card with every variant's mean, interval and distribution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..metrics.base import Score
from ..results.schema import ImageScoreSummary, PairScoreSummary, Results, ScoreGroup
from ..stats.bootstrap import MeanCI
from . import charts, formatting, gallery


@dataclass(frozen=True)
class VariantStats:
    """What a card shows of one variant. tally: pictures that lost, kept and gained, of a picture score."""

    variant: str
    summary: PairScoreSummary | ImageScoreSummary
    mean: MeanCI
    histogram: charts.Histogram
    minimum_detectable_effect: float | None
    outcome_counts: tuple[int, int, int] | None


@dataclass(frozen=True)
class ScoreCard:
    """One score. floor: what the reference scores against itself."""

    score: Score
    is_pair_score: bool
    entries: tuple[VariantStats, ...]
    noise_floor: MeanCI | None


def build_cards(results: Results) -> list[ScoreCard]:
    """One for each score that any variant has."""
    made = [_card(results, score) for score in formatting.scores_by_name(results).values()]
    return [card for card in made if card.entries]


def _card(results: Results, score: Score) -> ScoreCard:
    pair = score in results.pair_scores
    values = {name: list(_values(results, name, score)) for name in results.variants}
    ends = charts.get_common_range([some for some in values.values() if some])
    entries = [entry for name in results.variants if (entry := _entry(results, name, score, values[name], ends))]
    return ScoreCard(score, pair, tuple(entries), _floor(results, score))


def _floor(results: Results, score: Score) -> MeanCI | None:
    """None where it was not measured, or where the reference painted the same again, which is said once for all."""
    floor = results.noise_floor
    if not floor or not floor.groups or floor.num_identical == floor.num_pairs:
        return None
    found = floor.groups[0].pair_scores.get(score.name) or floor.groups[0].image_scores.get(score.name)
    return get_primary_mean(found) if found else None


def _entry(
    results: Results, variant: str, score: Score, values: Sequence[float], ends: tuple[float, float]
) -> VariantStats | None:
    """None where the variant was not measured by this score."""
    summary = results.variants[variant]
    group = summary.groups[0] if summary.groups else None
    found = group and (group.pair_scores.get(score.name) or group.image_scores.get(score.name))
    if not found:
        return None
    return VariantStats(
        variant=variant,
        summary=found,
        mean=get_primary_mean(found),
        histogram=charts.build_histogram(values, ends, get_primary_mean(found)),
        minimum_detectable_effect=summary.minimum_detectable_effect.get(score.name),
        outcome_counts=_tally(values) if isinstance(found, ImageScoreSummary) else None,
    )


def get_primary_mean(summary: PairScoreSummary | ImageScoreSummary) -> MeanCI:
    """The mean that tells of the loss: that of a pair score, or the drop of a picture score."""
    return summary.mean if isinstance(summary, PairScoreSummary) else summary.drop


def _values(results: Results, variant: str, score: Score) -> Iterator[float]:
    """A pair score's values, or a picture score's drops, one a row that has one."""
    turn = -1 if score in results.pair_scores and score.higher_is_better else 1
    for row in results.samples:
        value = gallery.compute_loss(row, variant, score)
        if value is not None:
            yield turn * value


def _tally(drops: Sequence[float]) -> tuple[int, int, int]:
    return sum(drop > 0 for drop in drops), sum(drop == 0 for drop in drops), sum(drop < 0 for drop in drops)


def is_worse_than_overall(group: ScoreGroup, everything: ScoreGroup, score: Score) -> bool:
    """Whether a group's whole interval is worse than the mean of all pictures."""
    if score.name in group.pair_scores:
        mean, whole = group.pair_scores[score.name].mean, everything.pair_scores[score.name].mean.mean
        end = mean.high if score.higher_is_better else mean.low
        return end is not None and (end < whole if score.higher_is_better else end > whole)
    drop = group.image_scores[score.name].drop
    return drop.low is not None and drop.low > everything.image_scores[score.name].drop.mean
