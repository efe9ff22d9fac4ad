"""Computes where the lines and boxes of the charts stand, in units of the drawing; the template draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..results.schema import GateResult, HistoryPoint
from ..stats.bootstrap import MeanCI
from .formatting import is_minimum

NUM_BINS = 28
MAX_QUARTILE_RANGES = 3.0  # how far a histogram extends beyond the quartiles, in interquartile ranges
WIDTH, HEIGHT = 280.0, 56.0  # of a histogram
MIN_BAR_HEIGHT = 2.0  # keeps a rare value visible beside a frequent one
BULLET_WIDTH = 240.0
TREND_WIDTH, TREND_HEIGHT = 300.0, 96.0


@dataclass(frozen=True)
class Scale:
    """Maps values in low..high to positions in 0..width, and values beyond them to the ends."""

    low: float
    high: float
    width: float

    def __call__(self, value: float) -> float:
        fraction = (value - self.low) / (self.high - self.low)
        return round(min(max(fraction, 0.0), 1.0) * self.width, 2)


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram: its rectangle, the number of values, and their range."""

    x: float
    y: float
    width: float
    height: float
    count: int
    low: float
    high: float


@dataclass(frozen=True)
class Histogram:
    """A histogram.

    Attributes:
        bars: the bars that are not empty.
        mean: position of the mean.
        low: position of the lower end of its interval.
        high: position of the upper end of its interval.
        zero: position of the value 0; None if it lies outside.
        limits: values at both ends of the axis.
        num_below: number of values below the axis, which the first bar includes.
        num_above: number of values above the axis, which the last bar includes.
    """

    bars: tuple[Bar, ...]
    mean: float
    low: float
    high: float
    zero: float | None
    limits: tuple[float, float]
    num_below: int
    num_above: int


def get_common_range(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Returns the common axis of several histograms; 0 and 1 if there are none."""
    ranges = [_clip_range(values) for values in groups]
    return get_range([end for limits in ranges for end in limits]) if ranges else (0.0, 1.0)


def _clip_range(values: Sequence[float]) -> tuple[float, float]:
    """Returns the range of the values without outliers."""
    first, third = np.quantile(values, [0.25, 0.75])
    reach = MAX_QUARTILE_RANGES * (third - first) or np.inf
    return max(min(values), float(first - reach)), min(max(values), float(third + reach))


def get_range(values: Sequence[float]) -> tuple[float, float]:
    """Returns the smallest and the largest value, moved apart if they are equal."""
    low, high = min(values), max(values)
    if low < high:
        return low, high
    margin = abs(low) * 0.05 or 0.5
    return low - margin, high + margin


def build_histogram(values: Sequence[float], limits: tuple[float, float], mean: MeanCI) -> Histogram:
    """Builds a histogram with `NUM_BINS` bins over `limits`; the highest bar is as high as the drawing."""
    counts, edges = np.histogram(np.clip(values, *limits), NUM_BINS, limits)
    scale = Scale(*limits, WIDTH)
    step = WIDTH / NUM_BINS
    bars = []
    for i, count in enumerate(counts.tolist()):
        if count:
            height = round(max(count / int(counts.max()) * HEIGHT, MIN_BAR_HEIGHT), 2)
            x, y = round(i * step + 0.5, 2), round(HEIGHT - height, 2)
            bars.append(Bar(x, y, round(step - 1, 2), height, count, *edges[i : i + 2]))
    return Histogram(
        bars=tuple(bars),
        mean=scale(mean.mean),
        low=scale(mean.mean if mean.low is None else mean.low),
        high=scale(mean.mean if mean.high is None else mean.high),
        zero=scale(0) if limits[0] < 0 < limits[1] else None,
        limits=limits,
        num_below=sum(value < limits[0] for value in values),
        num_above=sum(value > limits[1] for value in values),
    )


@dataclass(frozen=True)
class Bullet:
    """The chart of a gate, in positions.

    Attributes:
        start: start of the range that passes.
        end: end of the range that passes.
        limit: the limit.
        value: the measured value.
        low: lower end of its interval.
        high: upper end of its interval.
    """

    start: float
    end: float
    limit: float
    value: float
    low: float
    high: float


def build_bullet(gate: GateResult) -> Bullet | None:
    """Builds the chart of a gate; None if it has no interval."""
    if gate.value is None or gate.low is None or gate.high is None:
        return None
    smallest, largest = get_range((gate.low, gate.high, gate.limit))
    margin = 0.15 * (largest - smallest)
    scale = Scale(smallest - margin, largest + margin, BULLET_WIDTH)
    limit = scale(gate.limit)
    start, end = (limit, BULLET_WIDTH) if is_minimum(gate) else (0.0, limit)
    return Bullet(start, end, limit, scale(gate.value), scale(gate.low), scale(gate.high))


@dataclass(frozen=True)
class Dot:
    """A run in a trend: its position, the ends of the interval, and the point of the history."""

    x: float
    y: float
    low: float
    high: float
    point: HistoryPoint


@dataclass(frozen=True)
class Trend:
    """The trend of a score over several runs.

    Attributes:
        score: name of the score.
        kind: `mean` or `drop`.
        lines: the dots by variant, oldest run first.
        limits: values at both ends of the axis.
        runs: when the first and the last run were created.
    """

    score: str
    kind: str
    lines: dict[str, tuple[Dot, ...]]
    limits: tuple[float, float]
    runs: tuple[str, str]


def build_trends(history: Sequence[HistoryPoint]) -> list[Trend]:
    """Builds a chart for each score and kind that several runs measured; the runs are spaced evenly."""
    groups: dict[tuple[str, str], list[HistoryPoint]] = {}
    for point in sorted(history, key=lambda point: point.created):
        groups.setdefault((point.score, point.kind), []).append(point)
    return [
        _build_trend(score, kind, points)
        for (score, kind), points in groups.items()
        if len({point.created for point in points}) > 1
    ]


def _build_trend(score: str, kind: str, points: Sequence[HistoryPoint]) -> Trend:
    runs = sorted({point.created for point in points})
    x_scale = Scale(0, len(runs) - 1, TREND_WIDTH)
    values = [value for point in points for value in (point.value, point.low, point.high) if value is not None]
    limits = get_range(values)
    y_scale = Scale(*limits, TREND_HEIGHT)
    lines: dict[str, list[Dot]] = {}
    for point in points:
        ends = [point.value if value is None else value for value in (point.value, point.low, point.high)]
        y, low, high = (round(TREND_HEIGHT - y_scale(value), 2) for value in ends)
        lines.setdefault(point.variant, []).append(Dot(x_scale(runs.index(point.created)), y, low, high, point))
    return Trend(score, kind, {name: tuple(dots) for name, dots in lines.items()}, limits, (runs[0], runs[-1]))
