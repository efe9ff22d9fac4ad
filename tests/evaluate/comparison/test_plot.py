from __future__ import annotations

import pytest
from helpers.candidate_results import Candidate, make_candidate_results, spread

from edgepress.evaluate.comparison.builder import build_comparison
from edgepress.evaluate.comparison.plot import build_plot

MB = 10**6


def test_points_lie_between_the_ticks_around_them() -> None:
    candidates = {name: Candidate(spread(30 + size), size * MB) for name, size in (("a", 10), ("b", 20), ("c", 35))}
    plot = build_plot(build_comparison([make_candidate_results(candidates)]).candidates)
    assert plot is not None
    sizes = [(float(tick.text), tick.position) for tick in plot.sizes]
    levels = [(float(tick.text), tick.position) for tick in plot.levels]
    for point in plot.points:
        size, mean = (point.entry.system.weight_bytes or 0) / MB, point.entry.scores["psnr"].mean
        for axis, value, position in (
            (sizes, size, point.x),
            (levels, mean.mean, point.y),
            (levels, mean.low, point.low),
        ):
            (first, start), (last, end) = axis[0], axis[-1]
            expected = start + (value - first) / (last - first) * (end - start)
            assert position == pytest.approx(expected, abs=0.05)
        assert 0 < point.x < 100
        assert 0 < point.high < point.y < point.low < 100
    assert 3 <= len(sizes) <= 6
    assert 3 <= len(levels) <= 6


def test_the_line_runs_along_the_front_in_stairs() -> None:
    candidates = {
        "a": Candidate(spread(30), 10 * MB),
        "beaten": Candidate(spread(25), 20 * MB),
        "c": Candidate(spread(40), 30 * MB),
    }
    plot = build_plot(build_comparison([make_candidate_results(candidates)]).candidates)
    assert plot is not None
    by_name = {point.entry.name: point for point in plot.points}
    a, c = by_name["a"], by_name["c"]
    assert plot.front == ((a.x, 100.0), (a.x, a.y), (c.x, a.y), (c.x, c.y), (100.0, c.y))


def test_without_sizes_or_fidelity_there_is_no_plot() -> None:
    candidates = {"a": Candidate(spread(30), None), "b": Candidate(spread(0), 5, own_noise="x")}
    assert build_plot(build_comparison([make_candidate_results(candidates)]).candidates) is None


def test_a_single_candidate_has_a_plot() -> None:
    plot = build_plot(build_comparison([make_candidate_results({"a": Candidate([30.0] * 12, MB)})]).candidates)
    assert plot is not None
    assert (plot.points[0].x, plot.points[0].y) == (50, 50)
