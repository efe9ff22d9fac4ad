"""What the page says of each score: a card with every variant's mean, interval and distribution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..bootstrap import Mean
from ..registry import Score
from ..results import Group, PairSummary, PictureSummary, Results
from . import cases, charts, words


@dataclass(frozen=True)
class Entry:
    """What a card shows of one variant. tally: pictures that lost, kept and gained, of a picture score."""

    variant: str
    summary: PairSummary | PictureSummary
    mean: Mean
    histogram: charts.Histogram
    detectable: float | None
    tally: tuple[int, int, int] | None


@dataclass(frozen=True)
class Card:
    """One score. floor: what the reference scores against itself."""

    score: Score
    pair: bool
    entries: tuple[Entry, ...]
    floor: Mean | None


def cards_of(results: Results) -> list[Card]:
    """One for each score that any variant has."""
    made = [_card(results, score) for score in words.scores_of(results).values()]
    return [card for card in made if card.entries]


def _card(results: Results, score: Score) -> Card:
    pair = score in results.pair_scores
    values = {name: list(_values(results, name, score)) for name in results.variants}
    ends = charts.common_ends([some for some in values.values() if some])
    entries = [entry for name in results.variants if (entry := _entry(results, name, score, values[name], ends))]
    return Card(score, pair, tuple(entries), _floor(results, score))


def _floor(results: Results, score: Score) -> Mean | None:
    """None where it was not measured, or where the reference painted the same again, which is said once for all."""
    floor = results.floor
    if not floor or not floor.groups or floor.identical == floor.pictures:
        return None
    found = floor.groups[0].pairs.get(score.name) or floor.groups[0].scores.get(score.name)
    return mean_in(found) if found else None


def _entry(
    results: Results, variant: str, score: Score, values: Sequence[float], ends: tuple[float, float]
) -> Entry | None:
    """None where the variant was not measured by this score."""
    summary = results.variants[variant]
    group = summary.groups[0] if summary.groups else None
    found = group and (group.pairs.get(score.name) or group.scores.get(score.name))
    if not found:
        return None
    return Entry(
        variant=variant,
        summary=found,
        mean=mean_in(found),
        histogram=charts.histogram(values, ends, mean_in(found)),
        detectable=summary.detectable.get(score.name),
        tally=_tally(values) if isinstance(found, PictureSummary) else None,
    )


def mean_in(summary: PairSummary | PictureSummary) -> Mean:
    """The mean that tells of the loss: that of a pair score, or the drop of a picture score."""
    return summary.mean if isinstance(summary, PairSummary) else summary.drop


def _values(results: Results, variant: str, score: Score) -> Iterator[float]:
    """A pair score's values, or a picture score's drops, one a row that has one."""
    turn = -1 if score in results.pair_scores and score.higher_is_better else 1
    for row in results.rows:
        value = cases.badness(row, variant, score)
        if value is not None:
            yield turn * value


def _tally(drops: Sequence[float]) -> tuple[int, int, int]:
    return sum(drop > 0 for drop in drops), sum(drop == 0 for drop in drops), sum(drop < 0 for drop in drops)


def worse_than_all(group: Group, everything: Group, score: Score) -> bool:
    """Whether a group's whole interval is worse than the mean of all pictures."""
    if score.name in group.pairs:
        mean, whole = group.pairs[score.name].mean, everything.pairs[score.name].mean.mean
        end = mean.high if score.higher_is_better else mean.low
        return end is not None and (end < whole if score.higher_is_better else end > whole)
    drop = group.scores[score.name].drop
    return drop.low is not None and drop.low > everything.scores[score.name].drop.mean
