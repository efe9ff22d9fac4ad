from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.storage.database import open_database

STATEMENT = "CREATE TABLE IF NOT EXISTS numbers (value INTEGER)"


def test_file_and_folder_are_created(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "numbers.sqlite"
    with open_database(file, STATEMENT, kind="list", remedy="") as connection, connection:
        connection.execute("INSERT INTO numbers VALUES (7)")
    with open_database(file, STATEMENT, kind="list", remedy="") as connection:
        assert connection.execute("SELECT value FROM numbers").fetchall() == [(7,)]


def test_other_file_is_reported_with_a_remedy(tmp_path: Path) -> None:
    file = tmp_path / "numbers.sqlite"
    file.write_text("this is not a database" * 40)
    with (
        pytest.raises(UserError, match=r"numbers\.sqlite is not a valid list \(.*\)\. Delete it\.$"),
        open_database(file, STATEMENT, kind="list", remedy="Delete it."),
    ):
        pass


def test_a_database_of_another_program_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "browser.sqlite"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (address TEXT)")
    before = file.read_bytes()
    with (
        pytest.raises(UserError, match=r"not a valid list \(it has no table numbers, but bookmarks\)\. Pass another\."),
        open_database(file, "PRAGMA journal_mode = WAL", STATEMENT, kind="list", remedy="Pass another."),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["CAST('bookmarks' AS BLOB)", "CAST(x'ff6d' AS TEXT)", "7"])
def test_a_table_whose_name_is_damaged_is_reported(name: str, tmp_path: Path) -> None:
    file = tmp_path / "browser.sqlite"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (address TEXT)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(f"UPDATE sqlite_master SET name = {name}")
    with (
        pytest.raises(UserError, match=r"not a valid list \(.*\)\. Pass another\."),
        open_database(file, STATEMENT, kind="list", remedy="Pass another."),
    ):
        pass


def write_much(file: Path, pragma: str) -> None:
    with open_database(file, STATEMENT, kind="list", remedy="Delete it.") as connection, connection:
        connection.execute(f"PRAGMA {pragma}")
        connection.execute("INSERT INTO numbers VALUES (zeroblob(100000))")


@pytest.mark.parametrize(
    ("pragma", "problem"),
    [
        ("max_page_count = 2", "the disk is full. Make room, and run again."),
        ("query_only = ON", "it is read-only. Allow writing to the file and its folder, and run again."),
    ],
)
def test_a_valid_file_that_cannot_be_written_is_not_called_invalid(pragma: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "numbers.sqlite"
    with pytest.raises(UserError) as raised:
        write_much(file, pragma)
    assert str(raised.value) == f"Cannot use the list {file}: {problem}"


def test_a_file_that_is_locked_is_not_called_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepress.storage.database.LOCK_TIMEOUT_S", 0.01)
    file = tmp_path / "numbers.sqlite"
    with closing(sqlite3.connect(file)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with (
            pytest.raises(UserError, match=r"another process keeps it locked\. Wait until that process has ended"),
            open_database(file, STATEMENT, kind="list", remedy="Delete it."),
        ):
            pass


def test_a_folder_in_the_files_place_cannot_be_opened(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"it cannot be opened\. Check that it is a file"),
        open_database(tmp_path, STATEMENT, kind="list", remedy="Delete it."),
    ):
        pass
