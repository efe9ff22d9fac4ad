"""Writes the reports of an evaluation: HTML, Markdown and JUnit."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..results.schema import Results
from . import html, junit, markdown

HTML_FILE, MARKDOWN_FILE, JUNIT_FILE = "report.html", "report.md", "junit.xml"
REPORT_FILES = (HTML_FILE, MARKDOWN_FILE, JUNIT_FILE)


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
