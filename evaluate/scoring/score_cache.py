"""Caches the results of metrics in an SQLite file, so that no run computes them again."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from ... import __version__
from ...prompts.prompt import Prompt
from ...storage.database import LOCK_TIMEOUT_S, open_database
from ..metrics.base import MetricResult

STATEMENTS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",  # results that a power failure loses are computed again
    "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, result TEXT NOT NULL)",
)

STORED_RESULT = TypeAdapter(tuple[dict[str, FiniteFloat | None], dict[str, tuple[str, ...]]])

logger = logging.getLogger(__name__)


def make_cache_key(metric: str, version: str, code: str, digests: Sequence[str], prompt: Prompt) -> str:
    """Returns a hash of everything that a result depends on.

    Args:
        metric: Name of the metric.
        version: Version of the metric.
        code: Fingerprint of the metric's source code.
        digests: Content digests of the images.
        prompt: The prompt; its text, language, expected lines and their layout count, its id does not.
    """
    layout = [prompt.angle, prompt.region, prompt.text_height]
    content = [
        __version__,
        metric,
        version,
        code,
        list(digests),
        [prompt.prompt, prompt.language, *prompt.lines],
        *([layout] if any(value is not None for value in layout) else []),
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


class ScoreCache:
    """Results of metrics by cache key, in an SQLite file that several runs may use at once.

    Args:
        connection: Connection to the file, as `open_score_cache` opens it.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, key: str) -> MetricResult | None:
        """Returns the cached result, or None."""
        row = self._connection.execute("SELECT result FROM results WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            return MetricResult(*STORED_RESULT.validate_json(row[0]))
        except ValidationError:  # a damaged row: the result is computed again
            return None

    def put(self, key: str, result: MetricResult) -> None:
        """Stores a result, and replaces an earlier one."""
        content = json.dumps(result, ensure_ascii=False, allow_nan=False)
        with self._connection:
            self._connection.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (key, content))


@contextmanager
def open_score_cache(file: Path) -> Iterator[ScoreCache]:
    """Opens the score cache in a file, and creates it if it does not exist. A damaged one is replaced, with a warning.

    Raises:
        UserError: The file cannot be opened.
    """
    if file.exists() and _is_damaged(file):
        logger.warning("The score cache %s is damaged. It is replaced; scores are computed again.", file)
        for suffix in ("", "-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
    with open_database(file, *STATEMENTS, kind="score cache", remedy="Delete it and run again.") as connection:
        yield ScoreCache(connection)


def _is_damaged(file: Path) -> bool:
    """Whether a file is no database, has a table with other columns, or cannot be read as a whole."""
    try:
        with closing(sqlite3.connect(file, timeout=LOCK_TIMEOUT_S)) as connection:
            is_intact = connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
            columns = [row[1] for row in connection.execute("PRAGMA table_info(results)")]
    except sqlite3.OperationalError:  # another run is using it, or opening it says what is wrong
        return False
    except (sqlite3.DatabaseError, UnicodeDecodeError):  # the latter for a name that is no text
        return True
    return not is_intact or columns not in ([], ["key", "result"])
