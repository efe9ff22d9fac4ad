"""Power analysis: the minimum detectable effect of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from .bootstrap import cluster_sums

POWER = 0.8
SIGNIFICANCE_LEVEL = 0.05  # two-sided
EFFECT_FACTOR = NormalDist().inv_cdf(1 - SIGNIFICANCE_LEVEL / 2) + NormalDist().inv_cdf(POWER)  # 2.80 standard errors


def minimum_detectable_effect(values: Sequence[float], clusters: Sequence[str], is_fraction: bool) -> float | None:
    """Computes the smallest mean that differs significantly from 0 with a probability of `POWER`.

    Uses the normal approximation.

    Args:
        values: the paired differences.
        clusters: the prompt of each value.
        is_fraction: whether values are fractions in 0..1, or differences of fractions.

    Returns:
        None for a single prompt, and if all values are equal. For equal fractions: the rate of failing prompts at which
        at least one of the sampled prompts fails with a probability of `POWER`.
    """
    standard_error = clustered_standard_error(values, clusters)
    if standard_error is None:
        return None
    if standard_error > 0:
        return EFFECT_FACTOR * standard_error
    return float(1 - (1 - POWER) ** (1 / len(set(clusters)))) if is_fraction else None


def clustered_standard_error(values: Sequence[float], clusters: Sequence[str]) -> float | None:
    """Computes the standard error of the mean of values that are clustered by prompt.

    A mean over clusters of unequal sizes is a ratio estimator, whose error follows from the deviations of the clusters
    (Cochran, Sampling Techniques, 3rd edition, 6.3 and 9.7).

    Returns:
        None for fewer than two clusters.
    """
    sums, sizes = cluster_sums(values, clusters)
    count = len(sums)
    if count < 2:
        return None
    deviations = sums - sizes * (sums.sum() / sizes.sum())
    if np.abs(deviations).max() <= 1e-12 * np.abs(sums).max():  # rounding errors only
        return 0.0
    return float(np.sqrt(count / (count - 1) * (deviations**2).sum()) / sizes.sum())
