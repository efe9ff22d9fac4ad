from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import bootstrap

from edgepress.evaluate.stats.bootstrap import bootstrap_mean


def test_no_values_have_no_mean() -> None:
    assert bootstrap_mean([], []) is None


def test_one_prompt_has_no_interval() -> None:
    mean = bootstrap_mean([1.0, 3.0], ["a", "a"])
    assert mean is not None
    assert (mean.mean, mean.low, mean.high, mean.count) == (2, None, None, 2)


def test_equal_values_have_an_interval_of_width_0() -> None:
    mean = bootstrap_mean([2.5] * 5, list("abcde"))
    assert mean is not None
    assert (mean.mean, mean.low, mean.high) == (2.5, 2.5, 2.5)


def test_two_prompts_computed_by_hand() -> None:
    """Resamples of {0, 1} average 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4: each end occurs in more than 2.5%."""
    mean = bootstrap_mean([0.0, 1.0], ["a", "b"])
    assert mean is not None
    assert (mean.mean, mean.low, mean.high) == (0.5, 0, 1)


def test_many_prompts_give_the_normal_interval() -> None:
    values = np.random.default_rng(5).normal(10, 2, 400)
    mean = bootstrap_mean(list(values), [str(number) for number in range(400)])
    assert mean is not None
    half = 1.96 * values.std() / 20
    assert mean.low == pytest.approx(values.mean() - half, abs=0.02)
    assert mean.high == pytest.approx(values.mean() + half, abs=0.02)


def test_the_interval_equals_the_percentile_interval_of_scipy() -> None:
    values = np.random.default_rng(6).exponential(1, 40)
    mean = bootstrap_mean(list(values), [str(number) for number in range(40)])
    expected = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert mean is not None
    assert [mean.low, mean.high] == pytest.approx([expected.low, expected.high], rel=0.02)


def test_clusters_of_unequal_sizes_have_the_quantiles_of_all_resamples() -> None:
    """There are 3125 ways to draw five prompts; the test enumerates all."""
    groups = {"a": [1.0, 2.0], "b": [7.0], "c": [3.0, 4.0, 8.0], "d": [0.0], "e": [5.0, 5.0]}
    means = [np.mean([value for name in sample for value in groups[name]]) for sample in product(groups, repeat=5)]
    pairs = [(value, name) for name, values in groups.items() for value in values]
    mean = bootstrap_mean([value for value, _ in pairs], [name for _, name in pairs])
    assert mean is not None
    assert mean.mean == pytest.approx(35 / 9)
    assert [mean.low, mean.high] == pytest.approx(list(np.quantile(means, [0.025, 0.975])), abs=0.1)


def test_repeating_the_images_of_a_prompt_does_not_narrow_the_interval() -> None:
    values, prompts = [1.0, 4.0, 2.0, 8.0], ["a", "b", "c", "d"]
    once, thrice = bootstrap_mean(values, prompts), bootstrap_mean(values * 3, prompts * 3)
    assert once is not None
    assert thrice is not None
    assert [once.low, once.high] == pytest.approx([thrice.low, thrice.high])


def test_the_interval_is_deterministic() -> None:
    assert bootstrap_mean([1.0, 5.0, 2.0], ["a", "b", "c"]) == bootstrap_mean([1.0, 5.0, 2.0], ["a", "b", "c"])


def test_chunks_do_not_change_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values, prompts = list(np.linspace(0, 1, 50)), [str(number) for number in range(50)]
    whole = bootstrap_mean(values, prompts)
    monkeypatch.setattr("edgepress.evaluate.stats.bootstrap.MAX_DRAWS_PER_CHUNK", 150)
    assert bootstrap_mean(values, prompts) == whole
