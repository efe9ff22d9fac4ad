from __future__ import annotations

import numpy as np
import pytest

from edgepress.evaluate.stats.power import clustered_standard_error, minimum_detectable_effect


def names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def test_without_repeats_it_is_the_standard_error_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(3, 2, 50)
    assert clustered_standard_error(list(values), names(50)) == pytest.approx(values.std(ddof=1) / np.sqrt(50))


def test_repeating_the_pictures_of_a_prompt_makes_nothing_surer() -> None:
    values = [1.0, 4.0, 2.0, 8.0]
    assert clustered_standard_error(values * 3, names(4) * 3) == pytest.approx(
        clustered_standard_error(values, names(4))
    )


def test_clusters_of_unequal_sizes_have_the_spread_that_redrawing_them_has() -> None:
    rng = np.random.default_rng(2)
    groups = [rng.normal(rng.normal(0, 1), 0.5, size) for size in rng.integers(1, 5, 300)]
    values = [value for group in groups for value in group]
    clusters = [str(number) for number, group in enumerate(groups) for _ in group]
    sums, sizes = np.array([group.sum() for group in groups]), np.array([len(group) for group in groups])
    drawn = rng.integers(0, 300, (4000, 300))
    assert clustered_standard_error(values, clusters) == pytest.approx(
        (sums[drawn].sum(1) / sizes[drawn].sum(1)).std(), rel=0.05
    )


def test_such_a_drop_is_seen_in_80_of_100_samples() -> None:
    rng = np.random.default_rng(3)
    count, samples = 60, 2000
    smallest = minimum_detectable_effect(list(rng.normal(0, 1, 20_000)), names(20_000), is_fraction=False)
    assert smallest is not None
    drop = smallest * np.sqrt(20_000 / count)  # of so many prompts, the spread being known
    drawn = rng.normal(drop, 1, (samples, count))
    seen = np.abs(drawn.mean(1)) > 1.96 * drawn.std(1, ddof=1) / np.sqrt(count)
    assert seen.mean() == pytest.approx(0.8, abs=0.03)


def test_equal_shares_tell_what_one_picture_would_have_shown() -> None:
    """Of 30 prompts, one at least is lost with a chance of 80 % where each is lost with this one."""
    rate = minimum_detectable_effect([0.0] * 30, names(30), is_fraction=True)
    assert rate is not None
    lost = np.random.default_rng(4).random((20_000, 30)) < rate
    assert lost.any(1).mean() == pytest.approx(0.8, abs=0.01)


def test_what_cannot_be_known_is_none() -> None:
    assert minimum_detectable_effect([1.0, 2.0], ["a", "a"], is_fraction=True) is None
    assert minimum_detectable_effect([], [], is_fraction=True) is None
    assert minimum_detectable_effect([0.1] * 7, names(7), is_fraction=False) is None
