"""Means with a bootstrap 95 % interval, clustered by prompt: pictures of one prompt are not independent."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, FiniteFloat

NUM_RESAMPLES = 10_000
SEED = 0
MAX_DRAWS_PER_CHUNK = 2**22  # numbers, to bound the memory


class MeanCI(BaseModel):
    """A mean over `count` pictures and its interval; one prompt alone has no interval.

    prompts: that the pictures are of; None in results of before this was kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: FiniteFloat
    low: FiniteFloat | None
    high: FiniteFloat | None
    count: int
    num_prompts: int | None = None


def bootstrap_mean(
    values: Sequence[float], clusters: Sequence[str], num_resamples: int = NUM_RESAMPLES
) -> MeanCI | None:
    """The mean and its percentile interval; None where there is nothing to average.

    Args:
        clusters: the prompt of each value; whole prompts are drawn with replacement.
    """
    if not values:
        return None
    mean = float(np.mean(values))
    sums, sizes = cluster_sums(values, clusters)
    if len(sums) < 2:
        return MeanCI(mean=mean, low=None, high=None, count=len(values), num_prompts=len(sums))
    low, high = np.quantile(_resample_means(sums, sizes, num_resamples), [0.025, 0.975])
    return MeanCI(mean=mean, low=float(low), high=float(high), count=len(values), num_prompts=len(sums))


def cluster_sums(
    values: Sequence[float], clusters: Sequence[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The sum and the number of the values of each cluster."""
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums: npt.NDArray[np.float64] = np.bincount(index, np.asarray(values)).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _resample_means(
    sums: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64], resamples: int
) -> npt.NDArray[np.float64]:
    generator = np.random.default_rng(SEED)
    block = max(1, MAX_DRAWS_PER_CHUNK // len(sums))
    means = []
    for start in range(0, resamples, block):
        drawn = generator.integers(0, len(sums), (min(block, resamples - start), len(sums)))
        means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    return np.concatenate(means)
