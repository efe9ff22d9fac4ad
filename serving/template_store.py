"""Prompt templates in an SQLite file: texts with a place for a prompt's keywords."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from ..common.errors import UserError
from ..common.validation import explain_value
from ..storage.database import open_database

PLACEHOLDER = "{prompt}"
MAX_NAME, MAX_TEXT, MAX_TEMPLATES = 64, 2000, 1000
CREATE = "CREATE TABLE IF NOT EXISTS templates (name TEXT PRIMARY KEY, text TEXT NOT NULL)"
KIND = "file of templates"
REMEDY = "Move it away, or give another --state."
# What a new file holds.
EXAMPLES = {
    "product": "white background, product centred, soft light, {prompt}",
    "icon": "flat icon, simple shapes, plain background, {prompt}",
}


class TemplateText(BaseModel):
    """The text of a prompt template."""

    text: str = Field(
        min_length=1,
        max_length=MAX_TEXT,
        description="The text. `{prompt}` stands for what a request gives; without it, that is added at the end.",
        examples=["white background, product centred, {prompt}"],
    )


class Template(TemplateText):
    """A prompt template."""

    name: str = Field(pattern=r"^[a-z0-9_-]+$", max_length=MAX_NAME, description="Its name.")


def fill_template(text: str, prompt: str) -> str:
    """Returns the prompt that a template makes of keywords."""
    return text.replace(PLACEHOLDER, prompt) if PLACEHOLDER in text else f"{text}, {prompt}"


class TemplateStore:
    """The templates of a server.

    Args:
        file: The SQLite file, which is created with some examples if it does not exist.

    Raises:
        UserError: The file is something else, or cannot be written.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        is_new = not file.exists()
        with self._open() as connection:
            if is_new:
                connection.executemany("INSERT INTO templates VALUES (?, ?)", EXAMPLES.items())
        self.list_all()  # a server refuses a damaged file when it starts, not in a request

    def list_all(self) -> list[Template]:
        """All templates, by name."""
        with self._open() as connection:
            rows = connection.execute("SELECT name, text FROM templates ORDER BY name").fetchall()
        return [self._parse(name, text) for name, text in rows]

    def get(self, name: str) -> Template | None:
        """A template; None if there is none of this name."""
        with self._open() as connection:
            row = connection.execute("SELECT text FROM templates WHERE name = ?", (name,)).fetchone()
        return self._parse(name, row[0]) if row else None

    def put(self, template: Template) -> bool:
        """Adds a template, or replaces that of its name.

        Returns:
            False if there are already as many as there may be.
        """
        with self._open() as connection:
            count, exists = connection.execute(
                "SELECT count(*), sum(name = ?) FROM templates", (template.name,)
            ).fetchone()
            if count >= MAX_TEMPLATES and not exists:
                return False
            connection.execute("INSERT OR REPLACE INTO templates VALUES (?, ?)", (template.name, template.text))
        return True

    def remove(self, name: str) -> bool:
        """Removes a template; False if there is none of this name."""
        with self._open() as connection:
            return connection.execute("DELETE FROM templates WHERE name = ?", (name,)).rowcount > 0

    def _parse(self, name: object, text: object) -> Template:
        """The template of a row.

        Raises:
            UserError: Something else than a server wrote the row.
        """
        try:
            return Template.model_validate({"name": name, "text": text})
        except ValidationError as error:
            problem = explain_value(error.errors()[0])
            raise UserError(
                f"{self._file} is not a valid {KIND} ({problem}). Move it away, or give another --state."
            ) from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Opens the file for one transaction."""
        with open_database(self._file, CREATE, kind=KIND, remedy=REMEDY) as connection, connection:
            yield connection
