from __future__ import annotations

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
