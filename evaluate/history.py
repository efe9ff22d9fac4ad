"""An SQLite file with a point for every score of every run, and the trend of those that can be compared."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ..errors import UserError
from .bootstrap import Mean
from .registry import TRUTH, Metric
from .results import Identity, Point, Results, VariantSummary

Kind = Literal["mean", "drop"]
COLUMNS = ", ".join(Point.model_fields)
TABLE = f"CREATE TABLE IF NOT EXISTS points (comparable TEXT NOT NULL, {COLUMNS})"
INSERT = f"INSERT INTO points VALUES ({', '.join('?' * (len(Point.model_fields) + 1))})"
PATIENCE = 60.0  # seconds to wait for another run that writes


def ready(file: Path) -> None:
    """Makes the history where there is none.

    Raises:
        UserError: the file is no history.
    """
    with _opened(file):
        pass


def record(file: Path, results: Results, metrics: Sequence[Metric]) -> tuple[Point, ...]:
    """Adds a run, and gives all runs whose scores can be compared with it, itself included, in the order of time.

    Raises:
        UserError: the file is no history.
    """
    keys = {
        name: _comparable(results.identity, metric.name)
        for metric in metrics
        for score in metric.scores
        for name in (score.name, TRUTH + score.name)
    }
    points = [
        (keys[score], _point(results, name, score, kind, mean))
        for name, summary in results.variants.items()
        for score, kind, mean in _means(summary)
    ]
    with _opened(file) as connection:
        with connection:
            connection.executemany(INSERT, [(key, *point.model_dump().values()) for key, point in points])
        return tuple(_past(connection, set(keys.values()), set(results.variants)))


def _point(results: Results, variant: str, score: str, kind: Kind, mean: Mean) -> Point:
    return Point(
        created=results.created,
        edgepress=results.edgepress,
        variant=variant,
        score=score,
        kind=kind,
        value=mean.mean,
        low=mean.low,
        high=mean.high,
        pictures=mean.count,
    )


def _means(summary: VariantSummary) -> Iterator[tuple[str, Kind, Mean]]:
    everything = summary.groups[0]
    for score, pair in everything.pairs.items():
        yield score, "mean", pair.mean
    for score, found in everything.scores.items():
        yield score, "drop", found.drop


def _comparable(identity: Identity, metric: str) -> str:
    """Equal for scores of the same prompts, sampling, reference and truth by the same version of a metric."""
    reference = identity.reference
    content = [
        identity.prompts_sha256,
        identity.sampling.model_dump(),
        [reference.kind, reference.folder.sha256, reference.dtype],
        identity.truth.sha256 if identity.truth else None,
        [metric, identity.metrics[metric]],
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _past(connection: sqlite3.Connection, keys: set[str], variants: set[str]) -> Iterator[Point]:
    for comparable, *values in connection.execute(f"SELECT comparable, {COLUMNS} FROM points ORDER BY created, rowid"):
        point = dict(zip(Point.model_fields, values, strict=True))
        if comparable in keys and point["variant"] in variants:
            yield Point.model_validate(point)


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(file, timeout=PATIENCE)
        try:
            connection.execute(TABLE)
            yield connection
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise UserError(f"{file} is no history of evaluations ({error}); give another --history.") from error
