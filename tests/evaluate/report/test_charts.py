from __future__ import annotations

import numpy as np
import pytest

from edgepress.evaluate.report import charts
from edgepress.evaluate.report.charts import build_bullet, build_histogram, build_trends, get_common_range
from edgepress.evaluate.results.schema import GateResult, HistoryPoint, Verdict
from edgepress.evaluate.stats.bootstrap import MeanCI


def make_gate(
    name: str, limit: float, interval: tuple[float, float, float] | None, verdict: Verdict = "passed"
) -> GateResult:
    low, value, high = interval or (None, None, None)
    return GateResult(
        variant="v", name=name, score="s", limit=limit, relative=False, value=value, low=low, high=high,
        verdict=verdict, reason="", minimum_detectable_effect=None,
    )  # fmt: skip


def make_point(created: str, variant: str, value: float, score: str = "psnr", low: float | None = None) -> HistoryPoint:
    return HistoryPoint(
        created=created, edgepress="1", variant=variant, score=score, kind="mean", value=value, low=low, high=low,
        num_pairs=3,
    )  # fmt: skip


def test_bars_count_every_value_once() -> None:
    values = np.random.default_rng(0).normal(30, 2, 300).tolist()
    limits = get_common_range([values])
    chart = build_histogram(values, limits, MeanCI(mean=30, low=29, high=31, count=300))
    assert sum(bar.count for bar in chart.bars) == 300
    for bar in chart.bars:
        inside = sum(bar.low <= value < bar.high for value in values)
        assert abs(inside - bar.count) <= chart.num_below + chart.num_above + 1
    assert chart.low < chart.mean < chart.high
    assert chart.mean == pytest.approx((30 - limits[0]) / (limits[1] - limits[0]) * charts.WIDTH, abs=0.01)
    assert max(bar.height for bar in chart.bars) == charts.HEIGHT
    assert chart.zero is None


def test_outliers_are_counted_in_the_last_bar() -> None:
    values = [*np.linspace(40, 50, 50), -100.0]
    chart = build_histogram(values, get_common_range([values]), MeanCI(mean=42, low=None, high=None, count=51))
    assert (chart.num_below, chart.num_above) == (1, 0)
    assert chart.limits[0] > 0
    assert sum(bar.count for bar in chart.bars) == 51
    assert chart.low == chart.mean == chart.high


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [3.0, 3.0, 3.0]])
def test_equal_values_are_one_bar(values: list[float]) -> None:
    mean = MeanCI(mean=values[0], low=None, high=None, count=len(values))
    (bar,) = build_histogram(values, get_common_range([values]), mean).bars
    assert bar.count == len(values)
    assert 0 < bar.x < charts.WIDTH


def test_histograms_have_a_common_range() -> None:
    assert get_common_range([[1.0, 2.0, 3.0], [10.0, 11.0, 12.0]]) == (1, 12)
    assert get_common_range([]) == (0, 1)


def test_zero_is_marked_if_it_is_inside() -> None:
    chart = build_histogram([-1.0, 1.0], (-1.0, 1.0), MeanCI(mean=0, low=-1, high=1, count=2))
    assert chart.zero == charts.WIDTH / 2


@pytest.mark.parametrize(("name", "allowed"), [("psnr_min", "right"), ("text_drop", "left"), ("flip_max", "left")])
def test_the_bullet_marks_the_range_that_passes(name: str, allowed: str) -> None:
    bullet = build_bullet(make_gate(name, 2.0, (2.5, 3.0, 3.5)))
    assert bullet is not None
    assert bullet.limit < bullet.low < bullet.value < bullet.high
    expected = (bullet.limit, charts.BULLET_WIDTH) if allowed == "right" else (0, bullet.limit)
    assert (bullet.start, bullet.end) == expected


def test_there_is_no_bullet_without_an_interval() -> None:
    assert build_bullet(make_gate("psnr_min", 2.0, None, "not measured")) is None


def test_runs_are_sorted_by_time() -> None:
    history = [
        make_point("2026-03", "a", 3.0),
        make_point("2026-01", "a", 1.0, low=0.0),
        make_point("2026-02", "b", 2.0),
    ]
    (chart,) = build_trends(history)
    assert chart.runs == ("2026-01", "2026-03")
    assert chart.limits == (0, 3)
    assert [dot.x for dot in chart.lines["a"]] == [0, charts.TREND_WIDTH]
    assert [dot.x for dot in chart.lines["b"]] == [charts.TREND_WIDTH / 2]
    first, last = chart.lines["a"]
    assert first.y > last.y == 0  # higher values are further up
    assert first.low == charts.TREND_HEIGHT
    assert last.low == last.high == last.y


def test_a_single_run_is_not_a_trend() -> None:
    assert build_trends([make_point("2026-01", "a", 1.0), make_point("2026-01", "b", 1.0)]) == []
    trends = build_trends([make_point("1", "a", 1.0, "x"), make_point("2", "a", 1.0, "x")])
    assert [chart.score for chart in trends] == ["x"]
