"""Percentiles against numpy's, and how many values they need."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepress.perf.percentiles import PERCENTILES, min_samples, percentile


@pytest.mark.slow
@given(st.lists(st.floats(0, 1e6), min_size=100, max_size=300))
def test_percentiles_equal_numpy(values: list[float]) -> None:
    for percent in PERCENTILES:
        assert percentile(values, percent) == np.quantile(values, percent / 100, method="inverted_cdf")


@pytest.mark.parametrize(("percent", "count"), [(50, 2), (90, 10), (99, 100)])
def test_one_value_must_lie_above(percent: int, count: int) -> None:
    """The 99th percentile of 100 values is the second largest."""
    values = list(range(count))
    assert min_samples(percent) == count
    assert percentile(values, percent) == count - 2
    assert percentile(values[1:], percent) is None


def test_no_values() -> None:
    assert percentile([], 50) is None
