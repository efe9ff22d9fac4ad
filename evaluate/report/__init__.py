"""Reports of an evaluation, all built from one results.json: terminal, HTML, Markdown and JUnit."""

from .writer import check_reports, write_report

__all__ = ["check_reports", "write_report"]
