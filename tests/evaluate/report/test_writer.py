from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.evaluate.report import write_report
from edgepress.evaluate.results.schema import Results


@pytest.mark.slow
def test_writing_is_deterministic(results: Results, report: Path) -> None:
    first = {file.name: file.read_bytes() for file in report.iterdir()}
    assert sorted(first) == ["junit.xml", "report.html", "report.md"]
    write_report(results, report)
    assert {file.name: file.read_bytes() for file in report.iterdir()} == first
