"""Writes the reports of an evaluation: HTML, Markdown and JUnit."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..results.schema import Results
from . import html, junit, markdown

HTML_FILE, MARKDOWN_FILE, JUNIT_FILE = "report.html", "report.md", "junit.xml"


def write_report(results: Results, folder: Path) -> None:
    """Writes all reports, each file atomically. Equal results and images give equal files."""
    from ...storage.files import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        HTML_FILE: html.render(results, folder),
        MARKDOWN_FILE: markdown.render(results),
        JUNIT_FILE: junit.render(results),
    }
    for name, text in texts.items():
        atomic_write(folder / name, partial(_write_text, text))


def _write_text(text: str, path: Path) -> None:
    path.write_bytes(text.encode())
