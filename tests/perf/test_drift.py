"""The slope and its interval against scipy's, and the drift of known series, one of them a process that leaks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import theilslopes

from edgepress.perf.drift import estimate_drift
from edgepress.perf.process_memory import read_process_rss

LEAK_2_MB_PER_LINE = """
import sys
blocks = []
for line in sys.stdin:
    blocks.append(b"x" * 2_000_000)
    print("done", flush=True)
"""


@pytest.mark.parametrize("count", [10, 37, 100])
@pytest.mark.parametrize("resolution", [1e-9, 1.0])  # without ties and with them
def test_slope_and_interval_equal_scipy(count: int, resolution: float) -> None:
    generator = np.random.default_rng(count)
    series = np.round((0.05 * np.arange(count) + generator.normal(size=count)) / resolution) * resolution
    drift, reference = estimate_drift(list(series)), theilslopes(series)
    assert drift is not None
    expected = 100 * np.array([reference.slope, reference.low_slope, reference.high_slope])
    np.testing.assert_allclose([drift.slope, drift.low, drift.high], expected, rtol=1e-9)


def test_noise_is_significant_in_one_of_twenty_series() -> None:
    generator = np.random.default_rng(0)
    drifts = [estimate_drift(list(generator.normal(size=60))) for _ in range(400)]
    assert 0.02 < np.mean([drift.is_significant for drift in drifts if drift]) < 0.09


def test_line_has_its_slope() -> None:
    drift = estimate_drift([7 + 0.25 * number for number in range(2500)])
    assert drift is not None
    assert (drift.slope, drift.low, drift.high) == pytest.approx((25, 25, 25))
    assert drift.is_significant
    assert drift.n == 834  # every third value


@pytest.mark.parametrize("series", [[5.0] * 100, [5.0] * 6 + [9.0] * 94, [5.0] * 50 + [500.0] + [5.0] * 49])
def test_jump_is_no_drift(series: list[float]) -> None:
    drift = estimate_drift(series)
    assert drift is not None
    assert not drift.is_significant


def test_short_series_has_no_drift() -> None:
    assert estimate_drift([float(number) for number in range(9)]) is None


def test_leaking_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEAK_2_MB_PER_LINE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        series = []
        for _ in range(15):
            child.stdin.write(b"\n")
            assert child.stdout.readline() == b"done\n"
            series.append(read_process_rss(child.pid))
        child.stdin.close()
    drift = estimate_drift(series)
    assert drift is not None
    assert drift.is_significant
    assert drift.slope == pytest.approx(200e6, rel=0.05)
    assert read_process_rss(child.pid) == 0
