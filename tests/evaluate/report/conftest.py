"""Results with images that the tests of the reports share, and the reports written from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.report_results import make_report_results

from edgepress.evaluate.report import write_report
from edgepress.evaluate.results.schema import Results
from edgepress.prompts.prompt import Prompt


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report") / "its images"


@pytest.fixture(scope="session")
def results(signs: list[tuple[Prompt, Path]], image_folder: Path) -> Results:
    image_folder.mkdir()
    return make_report_results(signs, image_folder)


@pytest.fixture(scope="session")
def report(results: Results, image_folder: Path) -> Path:
    """The folder of the written reports, next to the folder of images."""
    folder = image_folder.parent / "evaluation"
    write_report(results, folder)
    return folder
