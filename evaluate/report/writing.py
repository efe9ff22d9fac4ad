"""Writes what is shown of results: the page, the summary for CI and the list of cases."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..results import Results
from . import html, junit, markdown

PAGE, SUMMARY, CASES = "report.html", "report.md", "junit.xml"


def write(results: Results, folder: Path) -> None:
    """Each file appears whole or not at all; equal results and pictures give equal files."""
    from ...checkpoint import written

    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        PAGE: html.page(results, folder),
        SUMMARY: markdown.render(results),
        CASES: junit.render(results),
    }
    for name, text in texts.items():
        written(folder / name, partial(_write, text))


def _write(text: str, new: Path) -> None:
    new.write_bytes(text.encode())
