"""The page in a real browser: on a desktop and a phone, in the light and the dark theme."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.chromium import Page, open_browser
from helpers.report_results import HOSTILE, RTL
from PIL import Image

from edgepress.evaluate.images.types import ImageArray
from edgepress.evaluate.results.schema import Results

pytestmark = pytest.mark.slow

CONTRAST = (Path(__file__).parent / "contrast.js").read_text("utf-8")
PHONE = (375, 812)


@pytest.fixture(scope="module")
def browser_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser_page: Page, report: Path) -> Iterator[Page]:
    """The report, opened on a desktop in the light theme; afterwards checks for console messages and requests."""
    browser_page.events.clear()
    browser_page.size(1280, 900)
    browser_page.set_color_scheme("light")
    browser_page.open(report / "report.html")
    yield browser_page
    assert browser_page.console_messages() == []
    assert browser_page.requested_urls() == [(report / "report.html").as_uri()]


def get_shown(page: Page, expression: str = "[item.sample.id, item.sample.seed, item.variant]") -> Any:
    """The value of a JavaScript expression for the item of each card on the page, in order."""
    return page.run(
        "(() => { const data = JSON.parse(document.getElementById('data').textContent);"
        "return [...document.querySelectorAll('#items [data-item]')].map((button) => {"
        "const item = data.items[button.dataset.item]; item.sample = data.samples[item.sample];"
        f"return {expression}; }}); }})()"
    )


def get_text(page: Page, selector: str) -> str:
    content: str = page.run(f"document.querySelector({json.dumps(selector)}).textContent")
    return content


def show_all_cards(page: Page) -> None:
    """Scrolls until the last card is created."""
    page.wait(
        "(() => { const more = document.getElementById('more');"
        "if (!more.hidden) more.scrollIntoView({behavior: 'instant'}); return more.hidden; })()"
    )


def capture(page: Page, selector: str) -> ImageArray:
    """A screenshot of an element."""
    box = page.run(
        f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
        "return [box.left, box.top, box.right, box.bottom]; })()"
    )
    with Image.open(io.BytesIO(page.screenshot())) as image:
        return np.asarray(image.convert("RGB").crop([round(edge) for edge in box]))


def open_first_item(page: Page, variant: str = "int4") -> None:
    """Opens the first item of a variant, in prompt order."""
    page.select("[name=variant]", variant)
    page.select("[name=sort]", ":order")
    page.click("#items button")
    page.wait("document.getElementById('viewer').open")


# ---------------------------------------------------------------- the gallery


def test_the_headline_and_all_cards_are_shown(page: Page, results: Results) -> None:
    assert get_text(page, "h1") == "Failed"
    assert page.run("document.querySelectorAll('.card').length") == 4
    assert page.run("document.querySelectorAll('.gates li').length") == len(results.gates)
    assert page.run("document.querySelectorAll('.trend polyline').length") == 4
    assert get_text(page, "#count") == "32 of 32"
    assert len(get_shown(page)) < 32  # cards are created as they come into view
    show_all_cards(page)
    assert len(get_shown(page)) == 32
    assert page.run("[...document.querySelectorAll('#items img')].every((image) => image.alt)")


def test_filters(page: Page) -> None:
    page.select("[name=variant]", "int8")
    assert get_text(page, "#count") == "16 of 32"
    assert {variant for _, _, variant in get_shown(page)} == {"int8"}
    page.select("[name=group]", "language: zh")
    assert get_text(page, "#count") == "8 of 32"
    page.select("[name=show]", ":identical")
    assert get_shown(page) == [["zh-0", 0, "int8"], ["zh-1", 0, "int8"]]
    page.select("[name=variant]", "")
    page.select("[name=group]", "")
    page.select("[name=show]", ":problems")
    assert sorted(get_shown(page, "item.failure ?? item.image.defect")) == sorted(
        ["missing", "size 64x128 instead of 128x128", "black"] * 2
    )
    page.select("[name=show]", "text_accuracy")
    show_all_cards(page)
    assert set(get_shown(page, "item.image.values.text_accuracy < item.sample.reference.values.text_accuracy")) == {
        True
    }
    page.click("[name=search]")
    for key in "matches nothing":
        page.press_key(key)
    assert get_text(page, "#count") == "0 of 32"
    assert page.run("!document.getElementById('none').hidden")


def test_sorting(page: Page) -> None:
    page.select("[name=sort]", "psnr")
    show_all_cards(page)
    values = get_shown(page, "item.failure || item.image.defect ? 'problem' : item.values.psnr")
    problems, measured = values[:6], [value for value in values[6:] if value is not None]
    assert problems == ["problem"] * 6
    assert measured == sorted(measured)
    assert values[-4:] == [None] * 4  # identical pairs have no PSNR
    page.select("[name=sort]", ":order")
    assert get_shown(page)[:2] == [["en-0", 0, "int4"], ["en-0", 0, "int8"]]


def test_hostile_text_is_text(page: Page) -> None:
    page.select("[name=sort]", ":order")
    prompts = page.run(
        "[...document.querySelectorAll('#items .prompt')].map((element) => [element.textContent, element.dir])"
    )
    assert [HOSTILE, "auto"] in prompts
    assert [RTL, "auto"] in prompts
    assert page.run("document.querySelectorAll('img:not([src^=\"data:\"])').length") == 0
    directions = page.run(
        "[...document.querySelectorAll('#items .prompt')].slice(0, 4)"
        ".map((element) => getComputedStyle(element).direction)"
    )
    assert directions == ["ltr", "ltr", "rtl", "rtl"]


def test_recognized_text_is_compared_with_the_expected_text(page: Page) -> None:
    open_first_item(page)
    assert page.run("[...document.querySelectorAll('.ocr dd')].map((element) => element.textContent)") == [
        "FRESH",
        "FRESH",
        "FREASH",
    ]
    assert get_text(page, ".ocr del") == "E"
    assert get_text(page, ".ocr ins") == "A"
    assert "\u2212100.0" in get_text(page, "#facts table")


# ---------------------------------------------------------------- the viewer


def test_modes(page: Page) -> None:
    open_first_item(page)
    page.press_key("2")
    page.wait("document.querySelector('#stage img').complete")
    assert page.run("getComputedStyle(document.querySelector('[data-kind=variant]')).clipPath").startswith(
        "inset(0px 0px"
    )
    half = capture(page, "#stage")
    page.press_key("4")
    reference = capture(page, "#stage")
    page.press_key(" ")
    variant = capture(page, "#stage")
    assert not np.array_equal(reference, variant)
    height, width = reference.shape[0] // 4, reference.shape[1]  # the captions and the handle are left out
    left, right = np.s_[-height:, 10 : width // 2 - 10], np.s_[-height:, width // 2 + 10 : -10]
    assert np.array_equal(half[left], reference[left])
    assert np.array_equal(half[right], variant[right])
    page.press_key("3")
    blend = capture(page, "#stage")[left].astype(int)
    between = (reference[left].astype(int) + variant[left]) / 2
    assert np.abs(blend - between).max() <= 2
    page.press_key("5")
    assert capture(page, "#stage")[left].mean() < 100  # a dark map of small errors
    page.press_key("1")
    assert page.run("[...document.querySelectorAll('#stage figure')].every((figure) => figure.checkVisibility())")


def test_swiping(page: Page) -> None:
    open_first_item(page)
    page.click("[data-set-mode=swipe]")
    assert page.run("document.querySelector('[data-set-mode=swipe]').getAttribute('aria-pressed')") == "true"
    x, y = page.center("#stage")
    width = page.run("document.getElementById('stage').clientWidth")
    page.drag((x, y), (x - width / 4, y))
    assert page.run("Number(document.getElementById('amount').value)") == pytest.approx(25, abs=1)
    page.run("document.getElementById('amount').focus()")
    title = get_text(page, "#viewer-title")
    page.press_key("ArrowRight")
    assert page.run("Number(document.getElementById('amount').value)") == pytest.approx(26, abs=1)
    assert get_text(page, "#viewer-title") == title  # the arrow key moved the divider


def test_keys_move_through_the_items(page: Page) -> None:
    open_first_item(page)
    ids = get_shown(page, "item.sample.id")
    assert get_text(page, "#position") == "1 / 16"
    assert page.run("document.getElementById('previous').disabled")
    page.press_key("ArrowLeft")
    assert ids[0] in get_text(page, "#viewer-title")
    page.press_key("ArrowRight")
    page.press_key("ArrowRight")
    assert get_text(page, "#position") == "3 / 16"
    assert ids[2] in get_text(page, "#viewer-title")
    page.press_key("ArrowLeft")
    assert get_text(page, "#position") == "2 / 16"
    page.press_key("Escape")
    page.wait("!document.getElementById('viewer').open")
    assert page.run("document.activeElement.matches('#items button')")  # the focus is back on the card
    page.press_key("Enter")
    page.wait("document.getElementById('viewer').open")
    page.click("#close")
    assert not page.run("document.getElementById('viewer').open")


def test_a_button_shows_the_other_variant(page: Page) -> None:
    open_first_item(page)
    page.click("#variants button")
    assert "int8" in get_text(page, "#viewer-title")
    assert get_text(page, "#position") == "1 / 16"
    page.press_key("ArrowRight")
    assert "int4" in get_text(page, "#viewer-title")  # the next item of the gallery
    assert get_text(page, "#position") == "2 / 16"


def test_links_open_their_sample(page: Page) -> None:
    page.click(".alert button.link")
    page.wait("document.getElementById('viewer').open")
    assert "int4" in get_text(page, "#viewer-title")
    assert get_text(page, "#facts .problem") in ("missing", "black", "size 64x128 instead of 128x128")
    assert page.run("document.querySelectorAll('#stage .placeholder').length") <= 2


# ---------------------------------------------------------------- themes, accessibility, phone


def test_light_and_dark(page: Page) -> None:
    background = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.run(background)
    page.click("#theme")
    dark = page.run(background)
    assert page.run("document.getElementById('theme').getAttribute('aria-pressed')") == "true"
    page.set_color_scheme("dark")
    assert page.run(background) == dark
    page.click("#theme")
    assert page.run(background) == light
    page.run("localStorage.clear()")
    page.run("delete document.documentElement.dataset.theme")
    assert page.run(background) == dark
    assert light != dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_contrast_is_sufficient(page: Page, scheme: str, tmp_path: Path) -> None:
    page.set_color_scheme(scheme)
    for state in ("page", "viewer"):
        if state == "viewer":
            open_first_item(page)
        ratio, content = page.run(CONTRAST)
        assert ratio >= 4.5, f"{content} in the {state}"
    (tmp_path / "page.png").write_bytes(page.screenshot())
    with Image.open(tmp_path / "page.png") as image:
        assert image.size == (1280, 900)


def test_all_controls_have_an_accessible_name(page: Page) -> None:
    """The accessible name of each control, as the browser computes it for screen readers."""
    open_first_item(page)
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "link", "combobox", "searchbox", "slider", "dialog", "image", "region"}
    nameless = [
        node
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in roles and not node.get("name", {}).get("value")
    ]
    assert nameless == []


def test_a_phone(page: Page) -> None:
    page.size(*PHONE, phone=True)
    page.set_color_scheme("dark")
    assert page.run("document.documentElement.scrollWidth") == PHONE[0]
    cards = page.run(
        "[...document.querySelectorAll('#items li')].slice(0, 3).map((card) => card.getBoundingClientRect().x)"
    )
    assert len(set(cards)) == 1  # a single column
    page.click("#items button")
    page.wait("document.getElementById('viewer').open")
    assert page.run("document.getElementById('viewer').scrollWidth") <= PHONE[0]
    outside = page.run(
        "[...document.querySelectorAll('.modes button, .viewer > header button')]"
        f".filter((button) => button.getBoundingClientRect().right > {PHONE[0]}).length"
    )
    assert outside == 0
    small = page.run(
        "[...document.querySelectorAll('.modes button, .viewer > header button')]"
        ".filter((button) => button.getBoundingClientRect().height < 24).length"
    )
    assert small == 0  # WCAG 2.2, 2.5.8
    with Image.open(io.BytesIO(page.screenshot())) as image:
        assert image.size == (2 * PHONE[0], 2 * PHONE[1])
