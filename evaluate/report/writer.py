"""Writes what is shown of results: the page, the summary for CI and the list of cases."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..results.schema import Results
from . import html, junit, markdown

HTML_FILE, MARKDOWN_FILE, JUNIT_FILE = "report.html", "report.md", "junit.xml"


def write_report(results: Results, folder: Path) -> None:
    """Each file appears whole or not at all; equal results and pictures give equal files."""
    from ...storage.files import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        HTML_FILE: html.render(results, folder),
        MARKDOWN_FILE: markdown.render(results),
        JUNIT_FILE: junit.render(results),
    }
    for name, text in texts.items():
        atomic_write(folder / name, partial(_write, text))


def _write(text: str, new: Path) -> None:
    new.write_bytes(text.encode())
