"""Where the lines and boxes of the report's charts stand, in units of the drawing; the template draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..results.schema import GateResult, HistoryPoint
from ..stats.bootstrap import MeanCI
from . import formatting

NUM_BINS = 28
MAX_QUARTILE_RANGES = 3.0  # quartile ranges that a histogram extends beyond the quartiles
WIDTH, HEIGHT = 280.0, 56.0  # of a histogram
BULLET_WIDTH = 240.0  # width
TREND_WIDTH, TREND_HEIGHT = 300.0, 96.0


@dataclass(frozen=True)
class Scale:
    """Maps values in low..high to places in 0..width."""

    low: float
    high: float
    width: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(min(max(share, 0.0), 1.0) * self.width, 2)


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    count: int
    low: float
    high: float


@dataclass(frozen=True)
class Histogram:
    """Bars, the mean and the ends of its interval; `zero` is where 0 stands, if it is inside.

    below, above: values beyond the ends, which the first and the last bar count as well.
    """

    bars: tuple[Bar, ...]
    mean: float
    low: float
    high: float
    zero: float | None
    limits: tuple[float, float]
    below: int
    above: int


def get_common_range(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Where histograms of several groups begin and end; 0 and 1 where there is nothing to show."""
    ends = [_ends(values) for values in groups]
    return get_range([end for pair in ends for end in pair]) if ends else (0.0, 1.0)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """The outermost values, but not far from the middle half of them."""
    first, third = np.quantile(values, [0.25, 0.75])
    reach = MAX_QUARTILE_RANGES * (third - first) or np.inf
    return max(min(values), float(first - reach)), min(max(values), float(third + reach))


def get_range(values: Sequence[float]) -> tuple[float, float]:
    """The smallest and the largest value, moved apart where they are equal."""
    low, high = min(values), max(values)
    if low < high:
        return low, high
    room = abs(low) * 0.05 or 0.5
    return low - room, high + room


def build_histogram(values: Sequence[float], limits: tuple[float, float], mean: MeanCI) -> Histogram:
    """How often values fall into each of `BINS` parts of `ends`; the highest bar is as high as the drawing."""
    counts, edges = np.histogram(np.clip(values, *limits), NUM_BINS, limits)
    place = Scale(*limits, WIDTH)
    step = WIDTH / NUM_BINS
    bars = [
        Bar(round(i * step + 0.5, 2), round(HEIGHT - tall, 2), round(step - 1, 2), tall, int(count), *edges[i : i + 2])
        for i, count in enumerate(counts)
        if (tall := _tall(int(count), int(counts.max())))
    ]
    low, high = _interval(mean)
    zero = place(0) if limits[0] < 0 < limits[1] else None
    below, above = sum(value < limits[0] for value in values), sum(value > limits[1] for value in values)
    return Histogram(tuple(bars), place(mean.mean), place(low), place(high), zero, limits, below, above)


def _tall(count: int, largest: int) -> float:
    """A bar's height; what happened once is still seen beside what happened often."""
    return round(max(count / largest * HEIGHT, 2.0), 2) if count else 0.0


def _interval(mean: MeanCI) -> tuple[float, float]:
    return (
        mean.mean if mean.low is None else mean.low,
        mean.mean if mean.high is None else mean.high,
    )


@dataclass(frozen=True)
class Bullet:
    """A gate: the part of the line that passes, the limit, and the interval that must clear it."""

    start: float
    end: float
    limit: float
    value: float
    low: float
    high: float


def build_bullet(gate: GateResult) -> Bullet | None:
    """None where there is no interval."""
    if gate.value is None or gate.low is None or gate.high is None:
        return None
    least, most = get_range((gate.low, gate.high, gate.limit))
    room = 0.15 * (most - least)
    place = Scale(least - room, most + room, BULLET_WIDTH)
    limit = place(gate.limit)
    start, end = (limit, BULLET_WIDTH) if formatting.is_minimum(gate) else (0.0, limit)
    return Bullet(start, end, limit, place(gate.value), place(gate.low), place(gate.high))


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    low: float
    high: float
    point: HistoryPoint


@dataclass(frozen=True)
class Trend:
    """A line for each variant, oldest run first."""

    score: str
    kind: str
    lines: dict[str, tuple[Dot, ...]]
    limits: tuple[float, float]
    runs: tuple[str, str]  # when the first and the last were made


def build_trends(history: Sequence[HistoryPoint]) -> list[Trend]:
    """One chart a score and kind, for those that were measured in more than one run; runs stand at equal distances."""
    charts: dict[tuple[str, str], list[HistoryPoint]] = {}
    for point in sorted(history, key=lambda point: point.created):
        charts.setdefault((point.score, point.kind), []).append(point)
    return [
        _trend(score, kind, points)
        for (score, kind), points in charts.items()
        if len({point.created for point in points}) > 1
    ]


def _trend(score: str, kind: str, points: Sequence[HistoryPoint]) -> Trend:
    runs = sorted({point.created for point in points})
    across = Scale(0, len(runs) - 1, TREND_WIDTH)
    values = [value for point in points for value in (point.value, point.low, point.high) if value is not None]
    ends = get_range(values)
    up = Scale(*ends, TREND_HEIGHT)
    lines: dict[str, list[Dot]] = {}
    for point in points:
        heights = [point.value if value is None else value for value in (point.value, point.low, point.high)]
        y, low, high = (round(TREND_HEIGHT - up(value), 2) for value in heights)
        lines.setdefault(point.variant, []).append(Dot(across(runs.index(point.created)), y, low, high, point))
    return Trend(score, kind, {name: tuple(dots) for name, dots in lines.items()}, ends, (runs[0], runs[-1]))
