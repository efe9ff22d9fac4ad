from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from helpers.result_rows import (
    EXACT,
    FLIP,
    PSNR,
    TEXT,
    VARIANT,
    make_identity,
    make_prompt,
    make_results,
    sample_result,
)

from edgepress.common.errors import UserError
from edgepress.evaluate.metrics.base import ImageMetric, Metric, MetricResult, PairMetric
from edgepress.evaluate.results.history import append_run, init_history
from edgepress.evaluate.results.schema import Results

METRICS: list[Metric] = [
    PairMetric("psnr", (PSNR,), lambda: "1", lambda *_: {}),
    PairMetric("flip", (FLIP,), lambda: "1", lambda *_: {}),
    ImageMetric("text", (TEXT, EXACT), lambda: "1", lambda *_: MetricResult({}, {})),
]


def run(psnr: float, created: str, **changed: object) -> Results:
    rows = [sample_result(make_prompt("a"), psnr, (1, 0.5)), sample_result(make_prompt("b"), psnr + 2, (1, 1))]
    return make_results(rows, created=created, identity=make_identity(**changed))


def trend(file: Path, results: Results, score: str = "psnr") -> list[tuple[str, float]]:
    points = append_run(file, results, METRICS)
    return [(point.created, point.value) for point in points if point.score == score]


def test_runs_are_added_and_come_back_in_the_order_of_time(tmp_path: Path) -> None:
    file = tmp_path / "new" / "history.sqlite"
    assert trend(file, run(30, "2026-02")) == [("2026-02", 31)]
    assert trend(file, run(20, "2026-01")) == [("2026-01", 21), ("2026-02", 31)]


def test_a_point_says_what_was_found(tmp_path: Path) -> None:
    points = {point.score: point for point in append_run(tmp_path / "history.sqlite", run(30, "2026"), METRICS)}
    assert set(points) == {"psnr", "flip", "text_accuracy", "exact"}
    psnr, text = points["psnr"], points["text_accuracy"]
    assert (psnr.variant, psnr.kind, psnr.value, psnr.low, psnr.high, psnr.num_pairs) == (
        VARIANT,
        "mean",
        31,
        30,
        32,
        2,
    )
    assert (text.kind, text.value) == ("drop", 0.25)


def test_scores_that_cannot_be_compared_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "history.sqlite"
    trend(file, run(10, "2026-01", prompts_sha256="1" * 64))
    trend(file, run(20, "2026-02", metrics={**make_identity().metrics, "text": "another OCR"}))
    later = run(30, "2026-03")
    assert trend(file, later) == [("2026-02", 21), ("2026-03", 31)]
    assert [created for created, _ in trend(file, later, "exact")] == ["2026-03", "2026-03"]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "history.sqlite").write_text("a text of some length" * 40)
    for act in (lambda file: init_history(file), lambda file: append_run(file, run(1, "2026"), METRICS)):
        with pytest.raises(UserError, match=r"history\.sqlite is no history of evaluations"):
            act(tmp_path / "history.sqlite")


def test_another_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        connection.execute("CREATE TABLE points (x)")
    with pytest.raises(UserError, match="is no history"):
        append_run(tmp_path / "other.sqlite", run(1, "2026"), METRICS)
