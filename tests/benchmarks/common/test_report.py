"""docs/benchmarks.md: a section is replaced in place, the others stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.benchmarks.common import report


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report, "FILE", tmp_path / "benchmarks.md")
    return tmp_path / "benchmarks.md"


def test_a_section_is_replaced_and_the_others_stay(file: Path) -> None:
    report.write_section("speed", "make a", "old speed")
    report.write_section("size", "make b", "a size \\1")
    report.write_section("speed", "make a", "new speed")
    text = file.read_text()
    assert "old speed" not in text
    assert text.index("new speed") < text.index("a size \\1")
    assert text.count("`make a`") == 1


def test_a_table_is_markdown() -> None:
    assert report.render_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_the_machine_is_named() -> None:
    assert "cores of" in report.describe_machine()
    assert "torch" in report.describe_machine()
