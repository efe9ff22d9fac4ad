"""The slope and its interval against scipy's, and what is seen of planted series, one of them a process that leaks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import theilslopes

from edgepress.perf.drift import estimate_drift
from edgepress.perf.process_memory import read_process_rss

LEAKS_2_MB_A_LINE = """
import sys
held = []
for line in sys.stdin:
    held.append(b"x" * 2_000_000)
    print("done", flush=True)
"""


@pytest.mark.parametrize("count", [10, 37, 100])
@pytest.mark.parametrize("grain", [1e-9, 1.0])  # with ties and without
def test_it_is_scipys(count: int, grain: float) -> None:
    random = np.random.default_rng(count)
    series = np.round((0.05 * np.arange(count) + random.normal(size=count)) / grain) * grain
    found, known = estimate_drift(list(series)), theilslopes(series)
    assert found is not None
    expected = 100 * np.array([known.slope, known.low_slope, known.high_slope])
    np.testing.assert_allclose([found.slope, found.low, found.high], expected, rtol=1e-9)


def test_of_noise_it_is_seen_in_one_of_twenty_series() -> None:
    random = np.random.default_rng(0)
    seen = [found.is_significant for _ in range(400) if (found := estimate_drift(list(random.normal(size=60))))]
    assert 0.02 < np.mean(seen) < 0.09


def test_a_line_has_its_slope() -> None:
    found = estimate_drift([7 + 0.25 * number for number in range(2500)])
    assert found is not None
    assert (found.slope, found.low, found.high) == pytest.approx((25, 25, 25))
    assert found.is_significant
    assert found.n == 834  # every third


@pytest.mark.parametrize("series", [[5.0] * 100, [5.0] * 6 + [9.0] * 94, [5.0] * 50 + [500.0] + [5.0] * 49])
def test_what_stays_after_a_jump_does_not_drift(series: list[float]) -> None:
    found = estimate_drift(series)
    assert found is not None
    assert not found.is_significant


def test_a_few_values_tell_nothing() -> None:
    assert estimate_drift([float(number) for number in range(9)]) is None


def test_a_process_that_leaks_is_found() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEAKS_2_MB_A_LINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        held = []
        for _ in range(15):
            child.stdin.write(b"\n")
            assert child.stdout.readline() == b"done\n"
            held.append(read_process_rss(child.pid))
        child.stdin.close()
    found = estimate_drift(held)
    assert found is not None
    assert found.is_significant
    assert found.slope == pytest.approx(200e6, rel=0.05)
    assert read_process_rss(child.pid) == 0
