"""Opens SQLite files that several runs share."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..common.errors import UserError
from ..common.regular_files import require_regular

LOCK_TIMEOUT_S = 60.0  # seconds to wait for another run that writes
PRIMARY_CODE = 0xFF  # the bits of a result code that are not an extension of it
# What is wrong where the file may well be valid, by SQLite's primary result code, and what to do.
LOCKED = "another process keeps it locked. Wait until that process has ended, and run again."
READ_ONLY = "it is read-only. Allow writing to the file and its folder, and run again."
OBSTACLES = {
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_PERM: READ_ONLY,
    sqlite3.SQLITE_FULL: "the disk is full. Make room, and run again.",
    sqlite3.SQLITE_IOERR: "the disk reports an error. Check that it has room and works, and run again.",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened. Check that it is a file, and that you may write it and its folder.",
}

CREATED_TABLE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)")


@contextmanager
def open_database(file: Path, *statements: str, kind: str, remedy: str) -> Iterator[sqlite3.Connection]:
    """Opens an SQLite file, and creates it if it does not exist.

    Args:
        file: The file. Its folder is created as well.
        statements: SQL statements to execute first, such as `CREATE TABLE IF NOT EXISTS`.
        kind: What the file is, for error messages, such as `score cache`.
        remedy: A sentence that says what to do if the file is not valid.

    Raises:
        UserError: The file is not an SQLite database, or has other tables, or it cannot be written.
    """
    require_regular(file, remedy)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(file, timeout=LOCK_TIMEOUT_S)
        try:
            _require_own(connection, statements, f"{file} is not a valid {kind}", remedy)
            for statement in statements:
                connection.execute(statement)
            yield connection
        finally:
            connection.close()
    except sqlite3.DatabaseError as error:
        obstacle = OBSTACLES.get(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & PRIMARY_CODE)
        if obstacle:
            raise UserError(f"Cannot use the {kind} {file}: {obstacle}") from error
        raise UserError(f"{file} is not a valid {kind} ({error}). {remedy}") from error


def _require_own(connection: sqlite3.Connection, statements: Sequence[str], problem: str, remedy: str) -> None:
    """Refuses a database of another program before anything is added to it."""
    tables = _list_tables(connection, problem, remedy)
    missing = [table for statement in statements for table in CREATED_TABLE.findall(statement) if table not in tables]
    if tables and missing:
        raise UserError(f"{problem} (it has no table {missing[0]}, but {', '.join(sorted(tables)[:3])}). {remedy}")


def _list_tables(connection: sqlite3.Connection, problem: str, remedy: str) -> set[str]:
    """The names of all tables, which may be no text in a damaged file."""
    try:
        listed = connection.execute("SELECT hex(name) FROM sqlite_master WHERE type = 'table'").fetchall()
    except UnicodeDecodeError as error:  # SQLite's message has the name in it
        raise UserError(f"{problem} (the name of a table is not UTF-8). {remedy}") from error
    return {bytes.fromhex(name).decode("utf-8", "replace") for (name,) in listed}
