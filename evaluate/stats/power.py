"""The smallest change of a mean that so many prompts of such spread can show."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from .bootstrap import cluster_sums

POWER = 0.8
SIGNIFICANCE_LEVEL = 0.05  # two-sided
EFFECT_FACTOR = NormalDist().inv_cdf(1 - SIGNIFICANCE_LEVEL / 2) + NormalDist().inv_cdf(POWER)  # 2.80 standard errors


def minimum_detectable_effect(values: Sequence[float], clusters: Sequence[str], is_fraction: bool) -> float | None:
    """The mean that differs from 0 at a level of 5 % with a chance of 80 %, by the normal approximation.

    Args:
        clusters: the prompt of each value.
        share: whether values are shares in 0..1, or differences of such.

    Returns:
        None for one prompt alone and where all values are equal; of equal shares, what share of prompts would have to
        be lost altogether for one of so many to show it with a chance of 80 %.
    """
    error = clustered_standard_error(values, clusters)
    if error is None:
        return None
    if error > 0:
        return EFFECT_FACTOR * error
    return float(1 - (1 - POWER) ** (1 / len(set(clusters)))) if is_fraction else None


def clustered_standard_error(values: Sequence[float], clusters: Sequence[str]) -> float | None:
    """That of the mean, whole prompts being drawn; None for fewer than two prompts.

    A mean over clusters of unequal sizes is a ratio, whose error is that of the clusters' deviations (Cochran, Sampling
    Techniques, 3rd edition, 6.3 and 9.7).
    """
    sums, sizes = cluster_sums(values, clusters)
    count = len(sums)
    if count < 2:
        return None
    deviations = sums - sizes * (sums.sum() / sizes.sum())
    if np.abs(deviations).max() <= 1e-12 * np.abs(sums).max():  # rounding alone
        return 0.0
    return float(np.sqrt(count / (count - 1) * (deviations**2).sum()) / sizes.sum())
