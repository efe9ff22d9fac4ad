"""Opens SQLite files that several runs share."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..common.errors import UserError

LOCK_TIMEOUT_S = 60.0  # seconds to wait for another run that writes


@contextmanager
def open_database(file: Path, *statements: str, kind: str, remedy: str) -> Iterator[sqlite3.Connection]:
    """Opens an SQLite file, and creates it if it does not exist.

    Args:
        file: The file. Its folder is created as well.
        statements: SQL statements to execute first, such as `CREATE TABLE IF NOT EXISTS`.
        kind: What the file is, for error messages, such as `score cache`.
        remedy: A sentence that says what to do if the file is not valid.

    Raises:
        UserError: The file is not an SQLite database, or has other tables.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(file, timeout=LOCK_TIMEOUT_S)
        try:
            for statement in statements:
                connection.execute(statement)
            yield connection
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        raise UserError(f"{file} is not a valid {kind} ({error}). {remedy}") from error
