"""Means with a 95% bootstrap confidence interval, clustered by prompt: images of one prompt are not independent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt

NUM_RESAMPLES = 10_000
SEED = 0
MAX_DRAWS_PER_CHUNK = 2**22  # bounds the memory: each draw is an int64


class MeanCI(BaseModel):
    """A mean and its 95% confidence interval; one prompt alone has no interval."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: FiniteFloat = Field(description="The mean.")
    low: FiniteFloat | None = Field(description="Lower end of the interval.")
    high: FiniteFloat | None = Field(description="Upper end of the interval.")
    count: NonNegativeInt = Field(description="Number of values.")
    num_prompts: NonNegativeInt | None = Field(
        default=None, description="Number of prompts; null in files of older versions."
    )


def bootstrap_mean(
    values: Sequence[float], clusters: Sequence[str], num_resamples: int = NUM_RESAMPLES
) -> MeanCI | None:
    """Computes a mean and its percentile interval. Whole clusters are resampled with replacement.

    Args:
        values: the values.
        clusters: the prompt of each value.
        num_resamples: how often the clusters are resampled; 0: there is no interval.

    Returns:
        None if there are no values.
    """
    if not values:
        return None
    mean = float(np.mean(values))
    sums, sizes = cluster_sums(values, clusters)
    if len(sums) < 2 or not num_resamples:
        return MeanCI(mean=mean, low=None, high=None, count=len(values), num_prompts=len(sums))
    low, high = np.quantile(_resample_means(sums, sizes, num_resamples), [0.025, 0.975])
    return MeanCI(mean=mean, low=float(low), high=float(high), count=len(values), num_prompts=len(sums))


def cluster_sums(
    values: Sequence[float], clusters: Sequence[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns the sum and the number of the values of each cluster, two arrays of shape (num_clusters,)."""
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums: npt.NDArray[np.float64] = np.bincount(index, np.asarray(values)).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _resample_means(
    sums: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64], num_resamples: int
) -> npt.NDArray[np.float64]:
    generator = np.random.default_rng(SEED)
    chunk = max(1, MAX_DRAWS_PER_CHUNK // len(sums))
    means = []
    for start in range(0, num_resamples, chunk):
        indices = generator.integers(0, len(sums), (min(chunk, num_resamples - start), len(sums)))
        means.append(sums[indices].sum(1) / sizes[indices].sum(1))
    return np.concatenate(means)
