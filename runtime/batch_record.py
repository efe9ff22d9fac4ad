"""batch.json: what the images of a folder depend on, and the SHA-256 of each file, beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..storage.files import hash_file, read_json_object, write_json

BATCH_RECORD = "batch.json"
TEXTS, FILES = "prompts", "files"  # keys: texts by id, and SHA-256 by the name of a file


def read_batch_record(folder: Path) -> tuple[dict[str, Any], dict[str, str], dict[str, str]] | None:
    """Reads the record of a folder.

    Returns:
        The settings, the texts of prompts by id, and the SHA-256 of files by name; None if there is no record.

    Raises:
        UserError: It is damaged.
    """
    path = folder / BATCH_RECORD
    if not path.exists():
        return None
    settings = read_json_object(path)
    parts = [settings.pop(key, {}) for key in (TEXTS, FILES)]
    for key, part in zip((TEXTS, FILES), parts, strict=True):
        if not isinstance(part, dict) or not all(isinstance(value, str) for value in part.values()):
            raise UserError(
                f"{path} is damaged: its '{key}' are no texts by name. Remove it, and generate the images "
                "again in another folder."
            )
    return settings, *parts


def write_batch_record(
    folder: Path, settings: Mapping[str, Any], texts: Mapping[str, str], files: Mapping[str, str]
) -> None:
    """Writes the record of a folder."""
    write_json({**settings, TEXTS: texts, **({FILES: files} if files else {})}, folder / BATCH_RECORD)


def find_exchanged_files(folder: Path) -> dict[str, str]:
    """Finds image files that are not what a batch has written, by the record beside them.

    Returns:
        By the name of a file, that of the one whose content it has now; empty for content that no batch has written.
    """
    record = read_batch_record(folder)
    expected = record[2] if record else {}
    names = {sha256: name for name, sha256 in expected.items()}
    present = {name: hash_file(folder / name) for name in expected if (folder / name).is_file()}
    return {name: names.get(sha256, "") for name, sha256 in present.items() if sha256 != expected[name]}
