"""Writes the reports of an evaluation: HTML, Markdown and JUnit."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ...storage.own_files import require_own
from ..results.schema import Results
from . import html, junit, markdown

HTML_FILE, MARKDOWN_FILE, JUNIT_FILE = "report.html", "report.md", "junit.xml"
REPORT_FILES = (HTML_FILE, MARKDOWN_FILE, JUNIT_FILE)
# What the reports begin with, of this release and of earlier ones.
BEGINNING_BYTES, GENERATOR = 1000, b"edgepress"


def check_reports(folder: Path) -> None:
    """Checks that reports which are going to be replaced are edgepress's.

    Args:
        folder: Where they are; it need not exist.

    Raises:
        UserError: One is the user's.
    """
    for name in REPORT_FILES:
        require_own(folder / name, _is_report)


def _is_report(file: Path) -> bool:
    with file.open("rb") as stream:
        return GENERATOR in stream.read(BEGINNING_BYTES)


def write_report(results: Results, *folders: Path) -> None:
    """Writes all reports, each file atomically. Equal results and images give equal files.

    Args:
        results: the results.
        folders: where to write them. The pages of several folders differ in their links to image files only.
    """
    from ...storage.atomic_file import atomic_write

    shared = {MARKDOWN_FILE: markdown.render(results), JUNIT_FILE: junit.render(results)}
    for folder, page in zip(folders, html.render_pages(results, folders), strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in {HTML_FILE: page, **shared}.items():
            atomic_write(folder / name, partial(_write_text, text))


def _write_text(text: str, path: Path) -> None:
    path.write_bytes(text.encode())
