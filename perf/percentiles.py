"""Percentiles of latencies, reported only if there are enough values."""

from __future__ import annotations

from collections.abc import Sequence

PERCENTILES = (50, 90, 99)


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Returns the smallest value that at least `percent` percent of all values do not exceed (nearest rank).

    Args:
        values: The values.
        percent: The percentile, such as 50 for the median.

    Returns:
        The percentile, or None if there are too few values for one to lie above it (see `min_samples`).
    """
    if len(values) < min_samples(percent):
        return None
    return sorted(values)[-(-len(values) * percent // 100) - 1]


def min_samples(percent: int) -> int:
    """Returns how many values a percentile needs: 2 for the 50th, 10 for the 90th, 100 for the 99th."""
    return -(-100 // (100 - percent))
