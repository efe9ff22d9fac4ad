"""Estimates whether a series rises: the Theil-Sen slope, with a 95 % confidence interval from Kendall's tau.

P. K. Sen, Estimates of the regression coefficient based on Kendall's tau, JASA 63 (1968): the estimate is the median of
the slopes of all pairs. The interval is from the slope of rank (N - z s) / 2 to that of rank (N + z s) / 2 + 1, where N
is the number of pairs and s^2 the variance of Kendall's S. It is robust against a jump or a few outliers, and takes
values as independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, PositiveInt

from .bench_model import BenchModel

Z_975 = 1.959963984540054  # the 97.5th percentile of the normal distribution
MIN_VALUES = 10  # with fewer values, S is not normally distributed
MAX_VALUES = 1000  # longer series are subsampled


class Drift(BenchModel):
    """The drift of a series."""

    slope: FiniteFloat = Field(description="Rise in 100 values.")
    low: FiniteFloat = Field(description="Lower end of the 95 % confidence interval.")
    high: FiniteFloat = Field(description="Upper end of the interval.")
    n: PositiveInt = Field(description="Number of values.")

    @property
    def is_significant(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low > 0 or self.high < 0


def estimate_drift(series: Sequence[float]) -> Drift | None:
    """Estimates the drift of a series; None if it has fewer than 10 values."""
    if len(series) < MIN_VALUES:
        return None
    indices = np.arange(0, len(series), -(-len(series) // MAX_VALUES))
    values = np.asarray(series, np.float64)[indices]
    earlier, later = np.triu_indices(len(values), 1)
    slopes = np.sort((values[later] - values[earlier]) / (indices[later] - indices[earlier]))
    width = Z_975 * math.sqrt(_kendall_variance(values))
    low = max(round((len(slopes) - width) / 2) - 1, 0)
    high = min(round((len(slopes) + width) / 2), len(slopes) - 1)
    per_100 = 100 * np.array([np.median(slopes), slopes[low], slopes[high]])
    return Drift(slope=per_100[0], low=per_100[1], high=per_100[2], n=len(values))


def _kendall_variance(values: NDArray[np.float64]) -> float:
    """Returns the variance of Kendall's S, corrected for ties."""
    _, ties = np.unique(values, return_counts=True)
    return float(_variance_term(np.array([len(values)]))[0] - _variance_term(ties).sum()) / 18


def _variance_term(count: NDArray[np.int64]) -> NDArray[np.int64]:
    result: NDArray[np.int64] = count * (count - 1) * (2 * count + 5)
    return result
