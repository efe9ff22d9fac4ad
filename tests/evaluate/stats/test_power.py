from __future__ import annotations

import numpy as np
import pytest

from edgepress.evaluate.stats.power import clustered_standard_error, minimum_detectable_effect


def make_names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def test_without_repeats_it_equals_the_standard_error_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(3, 2, 50)
    assert clustered_standard_error(list(values), make_names(50)) == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_repeating_the_images_of_a_prompt_does_not_reduce_the_error() -> None:
    values = [1.0, 4.0, 2.0, 8.0]
    assert clustered_standard_error(values * 3, make_names(4) * 3) == pytest.approx(
        clustered_standard_error(values, make_names(4))
    )


def test_clusters_of_unequal_sizes_have_the_spread_of_their_resamples() -> None:
    rng = np.random.default_rng(2)
    groups = [rng.normal(rng.normal(0, 1), 0.5, size) for size in rng.integers(1, 5, 300)]
    values = [value for group in groups for value in group]
    clusters = [str(number) for number, group in enumerate(groups) for _ in group]
    sums, sizes = np.array([group.sum() for group in groups]), np.array([len(group) for group in groups])
    indices = rng.integers(0, 300, (4000, 300))
    assert clustered_standard_error(values, clusters) == pytest.approx(
        (sums[indices].sum(1) / sizes[indices].sum(1)).std(), rel=0.05
    )


def test_the_effect_is_detected_in_80_of_100_samples() -> None:
    rng = np.random.default_rng(3)
    num_prompts, num_samples = 60, 2000
    effect = minimum_detectable_effect(list(rng.normal(0, 1, 20_000)), make_names(20_000), is_fraction=False)
    assert effect is not None
    drop = effect * np.sqrt(20_000 / num_prompts)  # scaled to this number of prompts
    drops = rng.normal(drop, 1, (num_samples, num_prompts))
    detected = np.abs(drops.mean(1)) > 1.96 * drops.std(1, ddof=1) / np.sqrt(num_prompts)
    assert detected.mean() == pytest.approx(0.8, abs=0.03)


def test_for_equal_fractions_the_rate_is_that_of_one_failing_prompt() -> None:
    """If each prompt fails with this probability, at least one of 30 prompts fails with a probability of 80%."""
    rate = minimum_detectable_effect([0.0] * 30, make_names(30), is_fraction=True)
    assert rate is not None
    failures = np.random.default_rng(4).random((20_000, 30)) < rate
    assert failures.any(1).mean() == pytest.approx(0.8, abs=0.01)


def test_an_unknown_effect_is_none() -> None:
    assert minimum_detectable_effect([1.0, 2.0], ["a", "a"], is_fraction=True) is None
    assert minimum_detectable_effect([], [], is_fraction=True) is None
    assert minimum_detectable_effect([0.1] * 7, make_names(7), is_fraction=False) is None
