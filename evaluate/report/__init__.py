"""Reports of an evaluation, all built from one results.json: terminal, HTML, Markdown and JUnit."""

from .writer import write_report

__all__ = ["write_report"]
