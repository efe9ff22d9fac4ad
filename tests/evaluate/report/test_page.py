"""The page in a real browser: what a person does with it, on a desk and on a phone, by day and by night."""

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
    """The report, freshly opened on a desk by day; afterwards nothing may have been complained of or asked for."""
    browser_page.events.clear()
    browser_page.size(1280, 900)
    browser_page.set_color_scheme("light")
    browser_page.open(report / "report.html")
    yield browser_page
    assert browser_page.console_messages() == []
    assert browser_page.requested_urls() == [(report / "report.html").as_uri()]


def shown(page: Page, what: str = "[one.asked.id, one.asked.seed, one.variant]") -> Any:
    """Something of each case whose card is on the page, in its order."""
    return page.run(
        "(() => { const data = JSON.parse(document.getElementById('data').textContent);"
        "return [...document.querySelectorAll('#cases [data-case]')].map((button) => {"
        "const one = data.cases[button.dataset.case]; one.asked = data.rows[one.row];"
        f"return {what}; }}); }})()"
    )


def text(page: Page, selector: str) -> str:
    found: str = page.run(f"document.querySelector({json.dumps(selector)}).textContent")
    return found


def all_cards(page: Page) -> None:
    """Scrolls until the last card is made."""
    page.wait(
        "(() => { const more = document.getElementById('more');"
        "if (!more.hidden) more.scrollIntoView({behavior: 'instant'}); return more.hidden; })()"
    )


def seen(page: Page, selector: str) -> ImageArray:
    """What is painted where an element is."""
    box = page.run(
        f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
        "return [box.left, box.top, box.right, box.bottom]; })()"
    )
    with Image.open(io.BytesIO(page.screenshot())) as image:
        return np.asarray(image.convert("RGB").crop([round(side) for side in box]))


def opened_case(page: Page, variant: str = "int4") -> None:
    """Opens the first case of a variant, in order of the prompts."""
    page.select("[name=variant]", variant)
    page.select("[name=sort]", ":order")
    page.click("#cases button")
    page.wait("document.getElementById('viewer').open")


# ---------------------------------------------------------------- the gallery


def test_the_headline_and_every_card_are_there(page: Page, results: Results) -> None:
    assert text(page, "h1") == "Failed"
    assert page.run("document.querySelectorAll('.card').length") == 4
    assert page.run("document.querySelectorAll('.gates li').length") == len(results.gates)
    assert page.run("document.querySelectorAll('.trend polyline').length") == 4
    assert text(page, "#count") == "32 of 32"
    assert len(shown(page)) < 32  # cards are made as they come into view
    all_cards(page)
    assert len(shown(page)) == 32
    assert page.run("[...document.querySelectorAll('#cases img')].every((image) => image.alt)")


def test_filters(page: Page) -> None:
    page.select("[name=variant]", "int8")
    assert text(page, "#count") == "16 of 32"
    assert {variant for _, _, variant in shown(page)} == {"int8"}
    page.select("[name=group]", "language: zh")
    assert text(page, "#count") == "8 of 32"
    page.select("[name=show]", ":identical")
    assert shown(page) == [["zh-0", 0, "int8"], ["zh-1", 0, "int8"]]
    page.select("[name=variant]", "")
    page.select("[name=group]", "")
    page.select("[name=show]", ":broken")
    assert sorted(shown(page, "one.failure ?? one.picture.defect")) == sorted(
        ["missing", "size 64x128 instead of 128x128", "black"] * 2
    )
    page.select("[name=show]", "text_accuracy")
    all_cards(page)
    assert (
        all("FRASH" in reading for reading in shown(page, "one.picture.read.map(([, part]) => part).join('')")) is False
    )
    assert set(shown(page, "one.picture.values.text_accuracy < one.asked.reference.values.text_accuracy")) == {True}
    page.click("[name=search]")
    for key in "nothing is called so":
        page.press_key(key)
    assert text(page, "#count") == "0 of 32"
    assert page.run("!document.getElementById('none').hidden")


def test_sorting(page: Page) -> None:
    page.select("[name=sort]", "psnr")
    all_cards(page)
    values = shown(page, "one.failure || one.picture.defect ? 'broken' : one.values.psnr")
    broken, measured = values[:6], [value for value in values[6:] if value is not None]
    assert broken == ["broken"] * 6
    assert measured == sorted(measured)
    assert values[-4:] == [None] * 4  # identical pairs have no PSNR
    page.select("[name=sort]", ":order")
    assert shown(page)[:2] == [["en-0", 0, "int4"], ["en-0", 0, "int8"]]


def test_hostile_text_is_text(page: Page) -> None:
    page.select("[name=sort]", ":order")
    prompts = page.run("[...document.querySelectorAll('#cases .prompt')].map((one) => [one.textContent, one.dir])")
    assert [HOSTILE, "auto"] in prompts
    assert [RTL, "auto"] in prompts
    assert page.run("document.querySelectorAll('img:not([src^=\"data:\"])').length") == 0
    sides = page.run(
        "[...document.querySelectorAll('#cases .prompt')].slice(0, 4).map((one) => getComputedStyle(one).direction)"
    )
    assert sides == ["ltr", "ltr", "rtl", "rtl"]


def test_what_was_read_is_compared_with_what_was_wanted(page: Page) -> None:
    opened_case(page)
    assert page.run("[...document.querySelectorAll('.spelled dd')].map((one) => one.textContent)") == [
        "FRESH",
        "FRESH",
        "FREASH",
    ]
    assert text(page, ".spelled del") == "E"
    assert text(page, ".spelled ins") == "A"
    assert "\u2212100.0" in text(page, "#facts table")


# ---------------------------------------------------------------- the viewer


def test_modes_show_what_they_say(page: Page) -> None:
    opened_case(page)
    page.press_key("2")
    page.wait("document.querySelector('#stage img').complete")
    assert page.run("getComputedStyle(document.querySelector('[data-kind=variant]')).clipPath").startswith(
        "inset(0px 0px"
    )
    half = seen(page, "#stage")
    page.press_key("4")
    reference = seen(page, "#stage")
    page.press_key(" ")
    variant = seen(page, "#stage")
    assert not np.array_equal(reference, variant)
    height, width = reference.shape[0] // 4, reference.shape[1]  # the captions and the handle are left out
    left, right = np.s_[-height:, 10 : width // 2 - 10], np.s_[-height:, width // 2 + 10 : -10]
    assert np.array_equal(half[left], reference[left])
    assert np.array_equal(half[right], variant[right])
    page.press_key("3")
    blend = seen(page, "#stage")[left].astype(int)
    between = (reference[left].astype(int) + variant[left]) / 2
    assert np.abs(blend - between).max() <= 2
    page.press_key("5")
    assert seen(page, "#stage")[left].mean() < 100  # a dark map of small errors
    page.press_key("1")
    assert page.run("[...document.querySelectorAll('#stage figure')].every((one) => one.checkVisibility())")


def test_swiping(page: Page) -> None:
    opened_case(page)
    page.click("[data-set-mode=swipe]")
    assert page.run("document.querySelector('[data-set-mode=swipe]').getAttribute('aria-pressed')") == "true"
    x, y = page.center("#stage")
    width = page.run("document.getElementById('stage').clientWidth")
    page.drag((x, y), (x - width / 4, y))
    assert page.run("Number(document.getElementById('amount').value)") == pytest.approx(25, abs=1)
    page.run("document.getElementById('amount').focus()")
    title = text(page, "#viewer-title")
    page.press_key("ArrowRight")
    assert page.run("Number(document.getElementById('amount').value)") == pytest.approx(26, abs=1)
    assert text(page, "#viewer-title") == title  # the arrow moved the divide


def test_keys_lead_through_the_cases(page: Page) -> None:
    opened_case(page)
    ids = shown(page, "one.asked.id")
    assert text(page, "#position") == "1 / 16"
    assert page.run("document.getElementById('previous').disabled")
    page.press_key("ArrowLeft")
    assert ids[0] in text(page, "#viewer-title")
    page.press_key("ArrowRight")
    page.press_key("ArrowRight")
    assert text(page, "#position") == "3 / 16"
    assert ids[2] in text(page, "#viewer-title")
    page.press_key("ArrowLeft")
    assert text(page, "#position") == "2 / 16"
    page.press_key("Escape")
    page.wait("!document.getElementById('viewer').open")
    assert page.run("document.activeElement.matches('#cases button')")  # back where it came from
    page.press_key("Enter")
    page.wait("document.getElementById('viewer').open")
    page.click("#close")
    assert not page.run("document.getElementById('viewer').open")


def test_other_variants_of_a_prompt_are_one_click_away(page: Page) -> None:
    opened_case(page)
    page.click("#others button")
    assert "int8" in text(page, "#viewer-title")
    assert text(page, "#position") == "1 / 16"
    page.press_key("ArrowRight")
    assert "int4" in text(page, "#viewer-title")  # what the gallery shows goes on
    assert text(page, "#position") == "2 / 16"


def test_links_open_the_case_that_they_name(page: Page) -> None:
    page.click(".alert button.link")
    page.wait("document.getElementById('viewer').open")
    assert "int4" in text(page, "#viewer-title")
    assert text(page, "#facts .trouble") in ("missing", "black", "size 64x128 instead of 128x128")
    assert page.run("document.querySelectorAll('#stage .absent').length") <= 2


# ---------------------------------------------------------------- by night, on a phone


def test_light_and_dark(page: Page) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.run(ground)
    page.click("#theme")
    dark = page.run(ground)
    assert page.run("document.getElementById('theme').getAttribute('aria-pressed')") == "true"
    page.set_color_scheme("dark")
    assert page.run(ground) == dark
    page.click("#theme")
    assert page.run(ground) == light
    page.run("localStorage.clear()")
    page.run("delete document.documentElement.dataset.theme")
    assert page.run(ground) == dark
    assert light != dark


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(page: Page, scheme: str, tmp_path: Path) -> None:
    page.set_color_scheme(scheme)
    for state in ("page", "viewer"):
        if state == "viewer":
            opened_case(page)
        ratio, where = page.run(CONTRAST)
        assert ratio >= 4.5, f"{where} in the {state}"
    (tmp_path / "page.png").write_bytes(page.screenshot())
    with Image.open(tmp_path / "page.png") as image:
        assert image.size == (1280, 900)


def test_everything_has_a_name(page: Page) -> None:
    """What a screen reader would say of each thing that can be used, as the browser computes it."""
    opened_case(page)
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
        "[...document.querySelectorAll('#cases li')].slice(0, 3).map((one) => one.getBoundingClientRect().x)"
    )
    assert len(set(cards)) == 1  # one below the other
    page.click("#cases button")
    page.wait("document.getElementById('viewer').open")
    assert page.run("document.getElementById('viewer').scrollWidth") <= PHONE[0]
    outside = page.run(
        "[...document.querySelectorAll('.modes button, .viewer > header button')]"
        f".filter((one) => one.getBoundingClientRect().right > {PHONE[0]}).length"
    )
    assert outside == 0
    small = page.run(
        "[...document.querySelectorAll('.modes button, .viewer > header button')]"
        ".filter((one) => one.getBoundingClientRect().height < 24).length"
    )
    assert small == 0  # WCAG 2.2, 2.5.8
    with Image.open(io.BytesIO(page.screenshot())) as image:
        assert image.size == (2 * PHONE[0], 2 * PHONE[1])
