"""Checks the values of an entry of a prompt set, and says in a sentence what is wrong with one."""

from __future__ import annotations

import json
import re
from typing import Any, cast, get_args

from ..common.errors import UserError
from .entries import Entry
from .prompt import Language

MAX_ID_BYTES = 200  # an id is part of the names of image files, which may have 255 bytes
CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # NUL, and halves of surrogate pairs
LANGUAGES = get_args(Language)


def parse_text(entry: Entry, key: str) -> str:
    """The text under a key, as it is.

    Raises:
        UserError: It is no text, or cannot be stored as UTF-8.
    """
    value = entry.fields.get(key)
    if not isinstance(value, str):
        problem = f"the {key} is missing" if value is None else f"{key} is {shorten(value)}, which is no text"
        raise UserError(f"{entry.where}: {problem}. Write one text.")
    return _require_storable(entry, key, value)


def require_text(entry: Entry, key: str) -> str:
    """The text under a key, as it is, if it is not blank.

    Raises:
        UserError: It is no text, or a blank one.
    """
    value = entry.fields.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{entry.where}: {key} must be a non-empty string, not {shorten(value)}. Write a text.")
    return _require_storable(entry, key, value)


def parse_id(entry: Entry, key: str) -> str:
    """The id under a key, which names image files; whole numbers are ids as well.

    Raises:
        UserError: It is empty, or cannot be a file's name on every system.
    """
    value = entry.fields[key]
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise UserError(f'{entry.where}: {key} is {shorten(value)}, which is no text. Write a name such as "en-01".')
    return require_id(_require_storable(entry, key, text), entry.where, key)


def require_id(text: str, where: str, key: str = "id") -> str:
    """An id as it is, if it can be the name of an image file.

    Raises:
        UserError: It cannot.
    """
    problem = ""
    if not text.strip():
        problem = "is empty"
    elif "/" in text or "\\" in text or text.startswith("."):
        problem = "is a path"
    elif text != text.strip() or CONTROL_CHARACTER.search(text):
        problem = "begins or ends with a space, or contains a control character"
    elif len(text.encode()) > MAX_ID_BYTES:
        problem = f"is longer than {MAX_ID_BYTES} bytes"
    if problem:
        shown = f" {shorten(text)}" if text.strip() else ""
        raise UserError(f'{where}: The {key}{shown} {problem}. It names image files; write a name such as "en-01".')
    return text


def parse_language(entry: Entry, key: str) -> Language:
    """The language under a key.

    Raises:
        UserError: It is not one that edgepress knows.
    """
    value = entry.fields[key]
    if value not in LANGUAGES:
        known = ", ".join(LANGUAGES)
        raise UserError(f"{entry.where}: {key} is {shorten(value)}. Write one of {known}, or leave it out.")
    return cast(Language, value)


def parse_lines(entry: Entry, key: str) -> tuple[str, ...]:
    """The lines of text under a key: a list of texts.

    Raises:
        UserError: It is something else.
    """
    value = entry.fields[key]
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise UserError(f'{entry.where}: {key} is {shorten(value)}. Write a list of texts, such as ["SALE"].')
    return tuple(_require_storable(entry, key, line) for line in value)


def parse_categories(entry: Entry, key: str) -> dict[str, str]:
    """The categories under a key: texts by name.

    Raises:
        UserError: It is something else.
    """
    value = entry.fields[key]
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise UserError(
            f'{entry.where}: {key} is {shorten(value)}. Write names with texts, such as {{"size": "small"}}.'
        )
    for text in (*value, *value.values()):
        _require_storable(entry, key, text)
    return value


def _require_storable(entry: Entry, key: str, text: str) -> str:
    """Refuses NUL and half characters, which JSON can express but UTF-8 files and tokenizers cannot hold."""
    if UNSTORABLE.search(text):
        raise UserError(f"{entry.where}: {key} contains NUL or half of a surrogate pair. Remove the character.")
    return text


def shorten(value: Any, limit: int = 60) -> str:
    """A value as JSON, for a message, cut to a length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
