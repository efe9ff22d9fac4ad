"""The page of a comparison in a real browser: light and dark, on a desktop and a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.candidate_results import GIB, Candidate, make_candidate_results, spread
from helpers.chromium import Page, open_browser
from helpers.report_results import HOSTILE

from edgepress.common.errors import UserError
from edgepress.evaluate.comparison.builder import build_comparison
from edgepress.evaluate.comparison.page import get_letter
from edgepress.evaluate.comparison.schema import CandidateComparison
from edgepress.evaluate.comparison.writer import check_comparison_files, write_comparison

CONTRAST = (Path(__file__).parents[1] / "report" / "contrast.js").read_text("utf-8")
PHONE = (375, 812)
CANDIDATES = {
    **{f"int{bits}": Candidate(spread(20 + 3 * bits), bits * 10**7, bits * GIB) for bits in range(2, 9)},
    HOSTILE: Candidate(spread(31), 3 * 10**7),
    "board": Candidate(spread(0), None, own_noise="its noise is its own"),
}


@pytest.fixture(scope="module")
def comparison() -> CandidateComparison:
    return build_comparison([make_candidate_results(CANDIDATES)])


@pytest.fixture(scope="module")
def folder(comparison: CandidateComparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("comparison")
    write_comparison(comparison, path)
    return path


@pytest.fixture(scope="module")
def browser_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser_page: Page, folder: Path) -> Iterator[Page]:
    """The page on a desktop; afterwards checks for console messages and requests."""
    browser_page.events.clear()
    browser_page.size(1280, 900)
    browser_page.open(folder / "compare.html")
    yield browser_page
    assert browser_page.console_messages() == []
    assert browser_page.requested_urls() == [(folder / "compare.html").as_uri()]


@pytest.mark.slow
def test_every_candidate_is_in_table_and_plot(page: Page) -> None:
    names = page.run(
        "[...document.querySelectorAll('#candidates ~ .scroll tbody bdi')].map((name) => name.textContent)"
    )
    assert set(names) == CANDIDATES.keys()
    assert page.run("document.querySelectorAll('.area > .mark').length") == len(CANDIDATES) - 1
    assert page.run("document.querySelector('h1 img') === null && document.querySelectorAll('img').length === 0")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_contrast_is_sufficient(page: Page, scheme: str) -> None:
    page.set_color_scheme(scheme)
    ratio, content = page.run(CONTRAST)
    assert ratio >= 4.5, content


@pytest.mark.slow
def test_a_phone_scrolls_tables_only(page: Page) -> None:
    page.size(*PHONE, phone=True)
    assert page.run("document.documentElement.scrollWidth") == PHONE[0]
    outside = page.run(
        "[...document.querySelectorAll('.area > .mark, .legend li, .answers li')]"
        f".filter((element) => element.getBoundingClientRect().right > {PHONE[0]}).length"
    )
    assert outside == 0


def test_both_files_are_written_again_and_those_of_the_user_are_kept(
    comparison: CandidateComparison, folder: Path, tmp_path: Path
) -> None:
    stored = CandidateComparison.model_validate_json((folder / "compare.json").read_text("utf-8"))
    assert stored == comparison
    content = (folder / "compare.html").read_bytes()
    check_comparison_files(folder)
    write_comparison(comparison, folder)
    assert (folder / "compare.html").read_bytes() == content
    for name in ("compare.html", "compare.json"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(UserError, match=rf"{name} was not made by edgepress"):
            check_comparison_files(tmp_path)
        (tmp_path / name).unlink()


def test_letters_go_on_after_z() -> None:
    assert [get_letter(number) for number in (0, 25, 26, 27, 52)] == ["A", "Z", "AA", "AB", "BA"]
