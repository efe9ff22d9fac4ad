"""Computes where the points of the plot of fidelity over size stand, in per cent of the drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from ..report.charts import get_range
from .schema import CandidateEntry

PSNR = "psnr"
MARGIN = 0.08  # of an axis, beyond the outermost points
MAX_TICKS = 6
STEPS = (1, 2, 5, 10)  # between ticks, times a power of ten


@dataclass(frozen=True)
class Point:
    """A candidate in the plot.

    Attributes:
        entry: The candidate.
        x: Position from the left, in per cent.
        y: Position from the top, in per cent.
        low: Position of the lower end of the interval.
        high: Position of the upper end.
    """

    entry: CandidateEntry
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Tick:
    """A label of an axis: its position in per cent, and its text."""

    position: float
    text: str


@dataclass(frozen=True)
class Plot:
    """The plot.

    Attributes:
        points: The candidates whose size and PSNR are known.
        front: Corners of the line along the candidates than which none is smaller and closer, as `x,y` pairs.
        sizes: Ticks of the horizontal axis, in MB.
        levels: Ticks of the vertical axis, in dB.
    """

    points: tuple[Point, ...]
    front: tuple[tuple[float, float], ...]
    sizes: tuple[Tick, ...]
    levels: tuple[Tick, ...]


def build_plot(entries: Sequence[CandidateEntry]) -> Plot | None:
    """Builds the plot; None if no candidate has a PSNR and a size."""
    shown = [entry for entry in entries if PSNR in entry.scores and entry.system.weight_bytes]
    if not shown:
        return None
    means = [entry.scores[PSNR].mean for entry in shown]
    ends = [end for mean in means for end in (mean.mean, mean.low, mean.high) if end is not None]
    x_axis = _widen([(entry.system.weight_bytes or 0) / 1e6 for entry in shown])
    y_axis = _widen(ends)
    points = []
    for entry, mean in zip(shown, means, strict=True):
        low, high = (mean.mean if end is None else end for end in (mean.low, mean.high))
        x = _locate((entry.system.weight_bytes or 0) / 1e6, x_axis)
        points.append(Point(entry, x, *(100 - _locate(value, y_axis) for value in (mean.mean, low, high))))
    return Plot(
        points=tuple(points),
        front=tuple(_list_corners([point for point in points if point.entry.on_front])),
        sizes=tuple(_list_ticks(x_axis, False)),
        levels=tuple(_list_ticks(y_axis, True)),
    )


def _widen(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis."""
    low, high = get_range(values)
    margin = MARGIN * (high - low)
    return low - margin, high + margin


def _locate(value: float, axis: tuple[float, float]) -> float:
    return round(100 * (value - axis[0]) / (axis[1] - axis[0]), 2)


def _list_corners(points: Sequence[Point]) -> list[tuple[float, float]]:
    """The corners of the stairs below and right of which every candidate is dominated."""
    corners: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: point.x):
        if corners:
            corners.append((point.x, corners[-1][1]))
        corners.append((point.x, point.y))
    return [(corners[0][0], 100.0), *corners, (100.0, corners[-1][1])] if corners else []


def _list_ticks(axis: tuple[float, float], is_vertical: bool) -> list[Tick]:
    """At most `MAX_TICKS` round numbers on an axis."""
    span = axis[1] - axis[0]
    power = 10 ** floor(log10(span / MAX_TICKS))
    step = next(power * factor for factor in STEPS if span / (power * factor) <= MAX_TICKS)
    digits = max(0, -floor(log10(step)))
    numbers = [step * number for number in range(ceil(axis[0] / step), floor(axis[1] / step) + 1)]
    positions = [_locate(number, axis) for number in numbers]
    return [
        Tick(round(100 - position, 2) if is_vertical else position, f"{number:,.{digits}f}")
        for number, position in zip(numbers, positions, strict=True)
    ]
