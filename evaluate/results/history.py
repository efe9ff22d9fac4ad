"""An SQLite file with a point for every score of every run, and the trend of those that can be compared."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ...common.errors import UserError
from ..metrics.base import GROUND_TRUTH_PREFIX, Metric
from ..stats.bootstrap import MeanCI
from .schema import HistoryPoint, Results, RunIdentity, VariantSummary

PointKind = Literal["mean", "drop"]
COLUMNS = ", ".join(HistoryPoint.model_fields)
CREATE_TABLE = f"CREATE TABLE IF NOT EXISTS points (comparable TEXT NOT NULL, {COLUMNS})"
INSERT_POINT = f"INSERT INTO points VALUES ({', '.join('?' * (len(HistoryPoint.model_fields) + 1))})"
LOCK_TIMEOUT_S = 60.0  # seconds to wait for another run that writes


def init_history(file: Path) -> None:
    """Makes the history where there is none.

    Raises:
        UserError: the file is no history.
    """
    with _connect(file):
        pass


def append_run(file: Path, results: Results, metrics: Sequence[Metric]) -> tuple[HistoryPoint, ...]:
    """Adds a run, and gives all runs whose scores can be compared with it, itself included, in the order of time.

    Raises:
        UserError: the file is no history.
    """
    keys = {
        name: _comparability_key(results.identity, metric.name)
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
        return tuple(_read_points(connection, set(keys.values()), set(results.variants)))


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
    everything = summary.groups[0]
    for score, pair in everything.pair_scores.items():
        yield score, "mean", pair.mean
    for score, found in everything.image_scores.items():
        yield score, "drop", found.drop


def _comparability_key(identity: RunIdentity, metric: str) -> str:
    """Equal for scores of the same prompts, sampling, reference and truth by the same version of a metric."""
    reference = identity.reference
    content = [
        identity.prompts_sha256,
        identity.sampling.model_dump(),
        [reference.kind, reference.folder.sha256, reference.dtype],
        identity.ground_truth.sha256 if identity.ground_truth else None,
        [metric, identity.metrics[metric]],
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _read_points(connection: sqlite3.Connection, keys: set[str], variants: set[str]) -> Iterator[HistoryPoint]:
    for comparable, *values in connection.execute(f"SELECT comparable, {COLUMNS} FROM points ORDER BY created, rowid"):
        point = dict(zip(HistoryPoint.model_fields, values, strict=True))
        if comparable in keys and point["variant"] in variants:
            yield HistoryPoint.model_validate(point)


@contextmanager
def _connect(file: Path) -> Iterator[sqlite3.Connection]:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(file, timeout=LOCK_TIMEOUT_S)
        try:
            connection.execute(CREATE_TABLE)
            yield connection
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise UserError(f"{file} is no history of evaluations ({error}); give another --history.") from error
