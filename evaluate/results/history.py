"""A history of runs: an SQLite file with one row per score and run, from which comparable runs are read back."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from ...common.errors import UserError
from ...storage.database import open_database
from ..metrics.base import GROUND_TRUTH_PREFIX, Metric
from ..stats.bootstrap import MeanCI
from .schema import HistoryPoint, Results, RunIdentity, VariantSummary

PointKind = Literal["mean", "drop"]
# The columns in the order of the fields of HistoryPoint. They do not follow the names of the fields: files of all
# versions have these columns.
COLUMNS = "created, edgepress, variant, score, kind, value, low, high, pictures"
CREATE_TABLE = f"CREATE TABLE IF NOT EXISTS points (comparable TEXT NOT NULL, {COLUMNS})"
INSERT_POINT = f"INSERT INTO points VALUES ({', '.join('?' * (len(HistoryPoint.model_fields) + 1))})"
SELECT_POINTS = f"SELECT comparable, {COLUMNS} FROM points ORDER BY created, rowid"


def init_history(file: Path) -> None:
    """Creates the history if it does not exist, and otherwise checks all of its rows, and that more can be appended.

    Raises:
        UserError: the file is not a history, a row of it is damaged, or it cannot be written.
    """
    with _connect(file) as connection:
        connection.execute("BEGIN IMMEDIATE")  # as writing begins
        connection.execute("ROLLBACK")
        for _ in _iter_rows(connection, file):
            pass


def append_run(file: Path, results: Results, metrics: Sequence[Metric]) -> tuple[HistoryPoint, ...]:
    """Appends a run to the history.

    Args:
        file: the history.
        results: the run.
        metrics: the metrics that were measured.

    Returns:
        The points of all runs whose scores are comparable, this run included, oldest first.

    Raises:
        UserError: the file is not a history.
    """
    keys = {
        name: _make_comparability_key(results.identity, metric.name)
        for metric in metrics
        for score in metric.scores
        for name in (score.name, GROUND_TRUTH_PREFIX + score.name)
    }
    points = [
        (keys[score], _make_point(results, name, score, kind, mean))
        for name, summary in results.variants.items()
        for score, kind, mean in _iter_means(summary)
    ]
    with _connect(file) as connection:
        with connection:
            connection.executemany(INSERT_POINT, [(key, *point.model_dump().values()) for key, point in points])
        points_by_key = list(_iter_rows(connection, file))
    known = set(keys.values())
    return tuple(point for key, point in points_by_key if key in known and point.variant in results.variants)


def _make_point(results: Results, variant: str, score: str, kind: PointKind, mean: MeanCI) -> HistoryPoint:
    return HistoryPoint(
        created=results.created,
        edgepress=results.edgepress,
        variant=variant,
        score=score,
        kind=kind,
        value=mean.mean,
        low=mean.low,
        high=mean.high,
        num_pairs=mean.count,
    )


def _iter_means(summary: VariantSummary) -> Iterator[tuple[str, PointKind, MeanCI]]:
    overall = summary.groups[0]
    for score, pair_summary in overall.pair_scores.items():
        yield score, "mean", pair_summary.mean
    for score, image_summary in overall.image_scores.items():
        yield score, "drop", image_summary.drop


def _make_comparability_key(identity: RunIdentity, metric: str) -> str:
    """Returns a digest that is equal for runs whose scores by this metric are comparable.

    It covers the prompts, the sampling, the reference, the ground truth, and the version of the metric.
    """
    reference, sampling = identity.reference, identity.sampling
    absent = {"num_seeds"} | ({"negative_prompt"} if not sampling.negative_prompt else set())
    content = [
        identity.prompts_sha256,
        sampling.model_dump(exclude=absent) | {"seeds": sampling.num_seeds},  # as in files of all versions
        [reference.kind, reference.folder.sha256, reference.dtype],
        identity.ground_truth.sha256 if identity.ground_truth else None,
        [metric, identity.metrics[metric]],
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _iter_rows(connection: sqlite3.Connection, file: Path) -> Iterator[tuple[str, HistoryPoint]]:
    """Yields all rows: the comparability key and the point."""
    for number, (key, *values) in enumerate(connection.execute(SELECT_POINTS), 1):
        try:
            yield key, HistoryPoint.model_validate(dict(zip(HistoryPoint.model_fields, values, strict=True)))
        except ValidationError as error:
            column = COLUMNS.split(", ")[list(HistoryPoint.model_fields).index(str(error.errors()[0]["loc"][0]))]
            raise UserError(
                f"{file} is not a valid evaluation history: the {column} of row {number} is wrong. Pass another file "
                "to --history."
            ) from error


def _connect(file: Path) -> AbstractContextManager[sqlite3.Connection]:
    return open_database(file, CREATE_TABLE, kind="evaluation history", remedy="Pass another file to --history.")
