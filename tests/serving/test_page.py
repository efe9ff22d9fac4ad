"""The page in a real browser: type, generate, see, cancel; by keyboard, on a phone, in the dark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.chromium import Page, open_browser
from helpers.server import TOKEN, RunningServer

CONTRAST = (Path(__file__).parents[1] / "evaluate" / "report" / "contrast.js").read_text("utf-8")
MIN_CONTRAST = 4.5  # WCAG 2.2, 1.4.3, level AA


@pytest.fixture(scope="module")
def page(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page, after the token was given to it."""
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.visit(server.url)
        for attempt, token in enumerate(("wrong", TOKEN)):
            is_hidden = json.dumps(attempt == 0)
            opened.wait(
                "document.querySelector('#sign-in').open && "
                f"document.querySelector('#token-error').hidden === {is_hidden}"
            )
            opened.type_text(token)
            opened.press_key("Enter")
        opened.wait("document.querySelector('#model').textContent.startsWith('small')")
        yield opened


def value(page: Page, selector: str, attribute: str = "textContent") -> str:
    return str(page.run(f"document.querySelector({json.dumps(selector)}).{attribute}"))


def fill(page: Page, selector: str, text: str) -> None:
    page.run(f"document.querySelector({json.dumps(selector)}).value = ''")
    page.click(selector)
    page.type_text(text)


@pytest.mark.slow
def test_type_generate_and_see(page: Page, server: RunningServer) -> None:
    page.size(1280, 900)
    fill(page, "#prompt", "a masterpiece")
    for selector, text in (("#width", "64"), ("#height", "32"), ("#steps", "3"), ("#seed", "11")):
        fill(page, selector, text)
    page.click("#generate")
    page.wait("!document.querySelector('#result').hidden && document.querySelector('#image').complete")
    assert page.run(
        "[document.querySelector('#image').naturalWidth, document.querySelector('#image').naturalHeight]"
    ) == [64, 32]
    assert value(page, "#facts").startswith("Size64×32Steps3Seed11")
    assert "masterpiece" in value(page, "#warnings")
    assert value(page, "#download", "download") == "edgepress-11.png"
    page.wait("document.querySelectorAll('#images li').length > 0 && !document.querySelector('#generate').disabled")
    assert [message for message in page.console_messages() if "status of 401" not in message] == []  # the two tokens
    assert all(url.startswith(server.url) for url in page.requested_urls())


@pytest.mark.slow
def test_the_keyboard_generates_and_cancels(page: Page, server: RunningServer) -> None:
    fill(page, "#steps", "4000")
    fill(page, "#prompt", "x")
    cancelled = server.read_metric("edgepress_cancelled_total")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", windowsVirtualKeyCode=13, modifiers=2)
    page.wait("document.querySelector('#stage').textContent.includes(' of 4000')")
    assert not page.run("document.querySelector('#cancel').hidden")
    page.press_key("Escape")
    page.wait("document.querySelector('#progress').hidden && !document.querySelector('#generate').disabled")
    server.wait_for_metric("edgepress_cancelled_total", cancelled + 1)
    assert page.run("document.querySelector('#error').hidden")
    page.click("#generate")
    page.wait("!document.querySelector('#cancel').hidden")
    page.click("#cancel")
    server.wait_for_metric("edgepress_cancelled_total", cancelled + 2)


@pytest.mark.slow
def test_a_refusal_is_shown(page: Page) -> None:
    fill(page, "#prompt", "x")
    fill(page, "#steps", "1")
    page.run("document.querySelector('#template').append(new Option('gone', 'gone'))")
    page.select("#template", "gone")
    page.click("#generate")
    page.wait("document.querySelector('#error').textContent.includes(\"Unknown template 'gone'\")")
    page.select("#template", "")


@pytest.mark.slow
def test_templates_are_added_and_removed(page: Page) -> None:
    page.click("#templates summary")
    fill(page, "#template-name", "mine")
    fill(page, "#template-text", "{prompt}, on a table")
    page.press_key("Enter")
    page.wait("[...document.querySelector('#template').options].some((option) => option.value === 'mine')")
    page.click("[aria-label='Remove the template mine']")
    page.wait("![...document.querySelector('#template').options].some((option) => option.value === 'mine')")


@pytest.mark.slow
def test_an_image_that_is_kept_is_opened_and_removed(page: Page) -> None:
    fill(page, "#prompt", "x")
    fill(page, "#seed", "12")
    page.click("#generate")
    page.wait("document.querySelector('#images .open')?.title === 'Image with seed 12'")
    page.click("#images li:nth-child(2) .open")
    page.wait("document.querySelector('#facts').textContent.includes('Seed11')")
    page.click("[aria-label='Remove the image with seed 12']")
    page.wait("document.querySelector('#images .open')?.title === 'Image with seed 11'")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height", "phone"), [(1280, 900, False), (390, 844, True)])
def test_it_fits_and_can_be_read(page: Page, scheme: str, width: int, height: int, phone: bool) -> None:
    page.size(width, height, phone)
    page.set_color_scheme(scheme)
    assert page.run("document.documentElement.scrollWidth") <= width
    ratio, text = page.run(CONTRAST)
    assert ratio >= MIN_CONTRAST, text
    low = (
        "[...document.querySelectorAll('button:not(.remove), input, select, summary')]"
        ".filter((element) => element.checkVisibility() && element.getBoundingClientRect().height < 40)"
    )
    assert page.run(f"{low}.map((element) => element.id || element.textContent)") == []
