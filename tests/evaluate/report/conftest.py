"""Results with pictures that the tests of the report share, and the page that is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import report_results as made

from edgepress.evaluate.report import write_report
from edgepress.evaluate.results.schema import Results
from edgepress.prompts.prompt import Prompt


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report") / "pictures of it"


@pytest.fixture(scope="session")
def results(signs: list[tuple[Prompt, Path]], pictures: Path) -> Results:
    pictures.mkdir()
    return made.make_report_results(signs, pictures)


@pytest.fixture(scope="session")
def report(results: Results, pictures: Path) -> Path:
    """The folder of the written report, beside the pictures."""
    folder = pictures.parent / "evaluation"
    write_report(results, folder)
    return folder
