"""What is shown of an evaluation: a page, a summary for CI and a list of cases, all of them from one results.json."""

from .writer import write_report

__all__ = ["write_report"]
