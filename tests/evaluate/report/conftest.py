"""Results with pictures that the tests of the report share, and the page that is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.evaluate.report import write
from edgepress.evaluate.results import Results
from edgepress.prompts import Prompt

from . import made


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report") / "pictures of it"


@pytest.fixture(scope="session")
def results(signs: list[tuple[Prompt, Path]], pictures: Path) -> Results:
    pictures.mkdir()
    return made.results(signs, pictures)


@pytest.fixture(scope="session")
def report(results: Results, pictures: Path) -> Path:
    """The folder of the written report, beside the pictures."""
    folder = pictures.parent / "evaluation"
    write(results, folder)
    return folder
