"""Writes a comparison: the page, and compare.json beside it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from ...storage.files import write_json
from ...storage.own_files import require_own
from ...storage.preflight import check_results_folder
from .page import render_page
from .schema import CandidateComparison

PAGE_NAME, JSON_NAME = "compare.html", "compare.json"
BEGINNING_BYTES, GENERATOR = 1000, b"edgepress"


def check_comparison_files(folder: Path) -> None:
    """Checks that a comparison can be written into a folder without replacing anything of the user's.

    Raises:
        UserError: The folder cannot be written to, or one of the files is not edgepress's.
    """
    check_results_folder(folder)
    require_own(folder / PAGE_NAME, _is_page)
    require_own(folder / JSON_NAME, _is_comparison)


def write_comparison(comparison: CandidateComparison, folder: Path) -> None:
    """Writes both files, each in one piece."""
    from ...storage.atomic_file import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    page = render_page(comparison)
    atomic_write(folder / PAGE_NAME, partial(_write_text, page))
    write_json(comparison.model_dump(mode="json"), folder / JSON_NAME)


def _write_text(text: str, path: Path) -> None:
    path.write_bytes(text.encode())


def _is_page(file: Path) -> bool:
    with file.open("rb") as stream:
        return GENERATOR in stream.read(BEGINNING_BYTES)


def _is_comparison(file: Path) -> bool:
    try:
        content = json.loads(file.read_text("utf-8"))
    except ValueError:
        return False
    return isinstance(content, dict) and {"candidates", "budgets", "answers"} <= content.keys()
