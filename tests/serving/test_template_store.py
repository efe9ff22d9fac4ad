"""A file of templates that something else has written to is refused, when the server starts."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.serving.template_store import TemplateStore


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("text", "", r"text = '': it must not be empty"),
        ("text", "y" * 5000, r"text = 'y{60}…': it must have at most 2000 characters"),
        ("text", b"\xff", "text = .*: it must be text"),
        ("name", None, "name = null: it must be text"),
        ("name", "../x", r"name = '\.\./x': it may have small letters"),
    ],
)
def test_rows_that_are_no_templates_are_refused(
    column: str, value: str | bytes | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "templates.sqlite"
    names = [template.name for template in TemplateStore(file).list_all()]
    assert names == ["icon", "product"]
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"UPDATE templates SET {column} = ? WHERE name = 'icon'", (value,))
        connection.commit()
    with pytest.raises(UserError, match=rf"templates\.sqlite is not a valid file of templates \({message}.*--state"):
        TemplateStore(file)
