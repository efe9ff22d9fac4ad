"""Whether a series rises: Theil's and Sen's slope, with its 95 % interval from Kendall's tau.

P. K. Sen, Estimates of the regression coefficient based on Kendall's tau, JASA 63 (1968): the median of the slopes of
all pairs, and of those slopes, in order, number (N - z s) / 2 and number (N + z s) / 2 + 1, where N counts the pairs
and s² is the variance of Kendall's S. A jump or a few wild values do not move it. It takes values as independent of
each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FiniteFloat

Z_975 = 1.959963984540054  # of a normal value, 97.5 % lie below
MIN_VALUES = 10  # values, below which S is not normal
MAX_VALUES = 1000  # values that are paired; of more, every so many-th


class Drift(BaseModel):
    """How much a series rises in 100 values, between which slopes with 95 % confidence, and of how many values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    n: int

    @property
    def is_significant(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low > 0 or self.high < 0


def estimate_drift(series: Sequence[float]) -> Drift | None:
    """The drift of a series; None of fewer than 10 values."""
    if len(series) < MIN_VALUES:
        return None
    places = np.arange(0, len(series), -(-len(series) // MAX_VALUES))
    values = np.asarray(series, np.float64)[places]
    earlier, later = np.triu_indices(len(values), 1)
    slopes = np.sort((values[later] - values[earlier]) / (places[later] - places[earlier]))
    width = Z_975 * math.sqrt(_kendall_variance(values))
    low = max(round((len(slopes) - width) / 2) - 1, 0)
    high = min(round((len(slopes) + width) / 2), len(slopes) - 1)
    found = 100 * np.array([np.median(slopes), slopes[low], slopes[high]])
    return Drift(slope=found[0], low=found[1], high=found[2], n=len(values))


def _kendall_variance(values: NDArray[np.float64]) -> float:
    """Of Kendall's S, where values may be equal."""
    count = len(values)
    _, ties = np.unique(values, return_counts=True)
    return float(_tie_term(np.array([count]))[0] - _tie_term(ties).sum()) / 18


def _tie_term(count: NDArray[np.int64]) -> NDArray[np.int64]:
    result: NDArray[np.int64] = count * (count - 1) * (2 * count + 5)
    return result
