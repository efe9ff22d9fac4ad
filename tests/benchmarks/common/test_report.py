"""The pages in docs/benchmarks/: a section is replaced in place, the others stay."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgepress.benchmarks.common import report


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pages without sections."""
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    for page in set(report.PAGES.values()):
        (tmp_path / page).write_text("# Title\n\nIntroduction.\n")
    return tmp_path


def test_a_section_is_replaced_and_the_others_stay(folder: Path) -> None:
    report.write_section("graphs-demo", "make a", "old speed")
    report.write_section("graphs-medium", "make b", "a size \\1")
    report.write_section("graphs-demo", "make a", "new speed")
    text = (folder / "onnx.md").read_text()
    assert text.startswith("# Title\n\nIntroduction.\n\n<!-- graphs-demo -->\nnew speed\n")
    assert "old speed" not in text
    assert text.index("new speed") < text.index("a size \\1")
    assert text.count("`make a`") == 1


@pytest.mark.usefixtures("folder")
def test_an_unknown_section_is_rejected() -> None:
    with pytest.raises(KeyError):
        report.write_section("speed", "make a", "text")


def test_every_section_of_the_documentation_is_on_its_page() -> None:
    """A section on another page would be written twice."""
    markers = re.compile(r"^<!-- (?!end of)(.+) -->$", re.MULTILINE)
    sections = {
        name: page.name for page in report.FOLDER.glob("*.md") for name in markers.findall(page.read_text("utf-8"))
    }
    assert sections
    assert sections.items() <= report.PAGES.items()


def test_the_machine_is_described() -> None:
    assert "cores of" in report.describe_machine()
    assert "torch" in report.describe_machine()
