"""Keeps every reading of a metric in an SQLite file, so that a picture is measured once in all runs."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ... import __version__
from ...common.errors import UserError
from ...prompts.prompt import Prompt
from ..metrics.base import MetricResult

LOCK_TIMEOUT_S = 60.0  # seconds to wait for another run that writes


def make_cache_key(metric: str, version: str, code: str, digests: Sequence[str], prompt: Prompt) -> str:
    """Says all that a reading depends on: the metric, its version and its code, the pictures, and what was asked."""
    asked = [prompt.prompt, prompt.language, *prompt.lines]
    content = [__version__, metric, version, code, list(digests), asked]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class ScoreCache:
    """Readings by key; one that was kept outlives the process. Several runs may use one file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, key: str) -> MetricResult | None:
        row = self._connection.execute("SELECT reading FROM readings WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        values, notes = json.loads(row[0])
        return MetricResult(values, {name: tuple(lines) for name, lines in notes.items()})

    def put(self, key: str, reading: MetricResult) -> None:
        content = json.dumps(reading, ensure_ascii=False, allow_nan=False)
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO readings VALUES (?, ?)", (key, content))


@contextmanager
def open_score_cache(file: Path) -> Iterator[ScoreCache]:
    """The memo in a file, which is made where there is none.

    Raises:
        UserError: the file is no memo.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(file, timeout=LOCK_TIMEOUT_S)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # what a power cut takes is measured again
            connection.execute("CREATE TABLE IF NOT EXISTS readings (key TEXT PRIMARY KEY, reading TEXT NOT NULL)")
            yield ScoreCache(connection)
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise UserError(f"{file}, where readings are kept, is damaged ({error}); delete it and run again.") from error
