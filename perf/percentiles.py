"""Quantiles of timings, of as many values as they need."""

from __future__ import annotations

from collections.abc import Sequence

PERCENTILES = (50, 90, 99)


def percentile(values: Sequence[float], percentile_rank: int) -> float | None:
    """The smallest value that so many percent of all values do not exceed (nearest rank, R's type 1).

    None where there are too few values for one to lie above it: 2 are needed for the 50th, 10 for the 90th, 100 for
    the 99th, which is then the largest but one.
    """
    if len(values) < min_samples(percentile_rank):
        return None
    return sorted(values)[-(-len(values) * percentile_rank // 100) - 1]


def min_samples(percent: int) -> int:
    """How many values a percentile needs: the fewest of which one lies above it."""
    return -(-100 // (100 - percent))
