from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from helpers.result_rows import EXACT, FLIP, PSNR, TEXT, VARIANT, make_identity, make_prompt, make_results, make_sample

from edgepress.common.errors import UserError
from edgepress.evaluate.metrics.base import ImageMetric, Metric, MetricResult, PairMetric
from edgepress.evaluate.results.history import append_run, init_history
from edgepress.evaluate.results.schema import Results

METRICS: list[Metric] = [
    PairMetric("psnr", (PSNR,), lambda: "1", lambda *_: {}),
    PairMetric("flip", (FLIP,), lambda: "1", lambda *_: {}),
    ImageMetric("text", (TEXT, EXACT), lambda: "1", lambda *_: MetricResult({}, {})),
]
# Of the metric psnr and the identity of `make_identity`, in files of edgepress 0.1.0.
COMPARABILITY_KEY = "c994b9b9d90b27193f4939fdd03cbb6a5809a09f74aa16e693df09267d161e30"


def make_run(psnr: float, created: str, **changes: object) -> Results:
    samples = [make_sample(make_prompt("a"), psnr, (1, 0.5)), make_sample(make_prompt("b"), psnr + 2, (1, 1))]
    return make_results(samples, created=created, identity=make_identity(**changes))


def append(file: Path, results: Results, score: str = "psnr") -> list[tuple[str, float]]:
    points = append_run(file, results, METRICS)
    return [(point.created, point.value) for point in points if point.score == score]


def test_runs_are_returned_oldest_first(tmp_path: Path) -> None:
    file = tmp_path / "new" / "history.sqlite"
    assert append(file, make_run(30, "2026-02")) == [("2026-02", 31)]
    assert append(file, make_run(20, "2026-01")) == [("2026-01", 21), ("2026-02", 31)]


def test_a_point_has_the_mean_or_drop_with_its_interval(tmp_path: Path) -> None:
    points = {point.score: point for point in append_run(tmp_path / "history.sqlite", make_run(30, "2026"), METRICS)}
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


def test_scores_that_are_not_comparable_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "history.sqlite"
    append(file, make_run(10, "2026-01", prompts_sha256="1" * 64))
    append(file, make_run(20, "2026-02", metrics={**make_identity().metrics, "text": "another OCR"}))
    last = make_run(30, "2026-03")
    assert append(file, last) == [("2026-02", 21), ("2026-03", 31)]
    assert [created for created, _ in append(file, last, "exact")] == ["2026-03", "2026-03"]


def test_files_of_edgepress_0_1_0_are_continued(tmp_path: Path) -> None:
    file = tmp_path / "history.sqlite"
    columns = "comparable TEXT NOT NULL, created, edgepress, variant, score, kind, value, low, high, pictures"
    row = (COMPARABILITY_KEY, "2026-01", "0.1.0", VARIANT, "psnr", "mean", 20.0, None, None, 3)
    with sqlite3.connect(file) as connection:
        connection.execute(f"CREATE TABLE points ({columns})")
        connection.execute(f"INSERT INTO points VALUES ({', '.join('?' * len(row))})", row)
    points = [point for point in append_run(file, make_run(30, "2026-02"), METRICS) if point.score == "psnr"]
    assert [(point.created, point.value, point.num_pairs) for point in points] == [
        ("2026-01", 20, 3),
        ("2026-02", 31, 2),
    ]


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("value", "high", "the value of row 2 is wrong"),
        ("value", float("inf"), "the value of row 2 is wrong"),
        ("pictures", 1.5, "the pictures of row 2 is wrong"),
        ("kind", "median", "the kind of row 2 is wrong"),
        ("variant", b"\xff", "the variant of row 2 is wrong"),
    ],
)
def test_a_damaged_row_is_found_before_any_work(column: str, value: object, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "history.sqlite"
    append(file, make_run(30, "2026-01"))
    init_history(file)
    with sqlite3.connect(file) as connection:
        connection.execute(f"UPDATE points SET {column} = ? WHERE rowid = 2", (value,))
    with pytest.raises(UserError, match=rf"history\.sqlite is not a valid evaluation history: {problem}"):
        init_history(file)


def test_a_history_that_cannot_be_written_is_found_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is read-only, a history that another process keeps locked can still be read."""
    monkeypatch.setattr("edgepress.storage.database.LOCK_TIMEOUT_S", 0.01)
    file = tmp_path / "history.sqlite"
    append(file, make_run(30, "2026-01"))
    with closing(sqlite3.connect(file)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match=r"Cannot use the evaluation history .*history\.sqlite: another process"):
            init_history(file)
    init_history(file)
    assert append(file, make_run(20, "2026-02")) == [("2026-01", 31), ("2026-02", 21)]


def test_a_history_with_other_columns_is_found_before_any_work(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "history.sqlite") as connection:
        connection.execute("CREATE TABLE points (a, b)")
    with pytest.raises(UserError, match="no such column"):
        init_history(tmp_path / "history.sqlite")


def test_a_file_of_another_kind_is_rejected(tmp_path: Path) -> None:
    file = tmp_path / "history.sqlite"
    file.write_text("a text of some length" * 40)
    with pytest.raises(UserError, match=r"history\.sqlite is not a valid evaluation history"):
        init_history(file)
    with pytest.raises(UserError, match=r"history\.sqlite is not a valid evaluation history"):
        append_run(file, make_run(1, "2026"), METRICS)


def test_another_database_is_rejected(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        connection.execute("CREATE TABLE points (x)")
    with pytest.raises(UserError, match="is not a valid evaluation history"):
        append_run(tmp_path / "other.sqlite", make_run(1, "2026"), METRICS)
