"""The page as a file; test_page.py opens it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from helpers.report_results import HOSTILE, RTL
from helpers.result_rows import failed_pair, make_prompt, make_results, sample_result, sample_with

from edgepress.evaluate.report import html, thumbnails
from edgepress.evaluate.results.schema import Results

VOID = {"meta", "link", "input", "br", "img"}
SCRIPTS = 3  # theme, data, the rest


class Outline(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts; complains of what is left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)

    def data(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.scripts[1])
        return content


@pytest.fixture(scope="module")
def text(report: Path) -> str:
    return (report / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def outline(text: str) -> Outline:
    return Outline(text)


def test_a_hostile_prompt_stays_in_its_place(text: str, outline: Outline) -> None:
    tags = [tag for tag, _ in outline.elements]
    assert tags.count("script") == SCRIPTS
    assert "img" not in tags
    assert HOSTILE not in text
    prompts = {row["prompt"] for row in outline.data()["rows"]}
    assert {HOSTILE, RTL} <= prompts


def test_nothing_is_fetched(text: str, outline: Outline) -> None:
    addresses = [
        value
        for _, attributes in outline.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href") and value
    ]
    assert all(value.startswith(("#", "data:")) for value in addresses)
    assert not re.search(r"@import|url\(", text)
    assert "innerHTML" not in text  # text only ever becomes text nodes


def test_elements_are_named_once_and_labels_lead_somewhere(outline: Outline) -> None:
    names = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in outline.elements:
        for name in ("aria-labelledby", "for"):
            assert attributes.get(name, names[0]) in names


def test_originals_are_linked_from_where_the_page_is(outline: Outline, report: Path, pictures: Path) -> None:
    data = outline.data()
    links = [row["reference"]["link"] for row in data["rows"]]
    links += [case["picture"]["link"] for case in data["cases"] if case["picture"]]
    assert {(report / unquote(link)).resolve() for link in links} == set(pictures.iterdir())
    assert all(" " not in link for link in links)


def test_every_case_has_its_numbers(results: Results, outline: Outline) -> None:
    data = outline.data()
    assert len(data["cases"]) == 2 * len(results.samples)
    for case in data["cases"]:
        seen = results.samples[case["row"]].variants[case["variant"]]
        assert (case["values"], case["failure"], case["identical"]) == (seen.values, seen.failure, seen.identical)
    assert data["groups"][:2] == ["language: en", "language: zh"]
    assert "kind: a|b </td>" in data["groups"]


def test_pictures_stop_where_the_budget_does(results: Results, report: Path) -> None:
    data = Outline(html.render(results, report, max_bytes=200_000)).data()
    shown = [case for case in data["cases"] if case["picture"] and case["picture"]["image"] is not None]
    assert 0 < len(shown) < len(data["cases"])
    assert sum(len(address) for address in data["images"]) < 1.4 * 200_000
    values = [case["values"]["psnr"] for case in shown if case["values"]["psnr"] is not None]
    assert min(case["values"].get("psnr") or 99 for case in data["cases"]) in values  # the worst one is there


def test_pictures_that_are_gone_are_said_to_be(results: Results, report: Path) -> None:
    gone = results.identity.model_copy(update={"pictures": "/nowhere"})
    page = html.render(results.model_copy(update={"identity": gone}), report)
    assert Outline(page).data()["images"] == []
    assert "0 of 28 pictures of variants are in this page" in page


def test_sort_begins_with_the_gate_that_failed(results: Results, tmp_path: Path) -> None:
    gates = [gate.model_copy(update={"verdict": "failed"}) if gate.score == "exact" else gate for gate in results.gates]
    text = html.render(results.model_copy(update={"gates": tuple(gates)}), tmp_path)
    assert '<option value="exact" selected>' in text


@pytest.mark.parametrize("failure", [None, "missing"])
def test_the_least_results_make_a_page(failure: str | None, tmp_path: Path) -> None:
    rows = [sample_with(make_prompt("a"), failed_pair(failure))] if failure else [sample_result(make_prompt("a"), 30.0)]
    Outline(html.render(make_results(rows), tmp_path))


def test_the_budget_bounds_the_page(text: str) -> None:
    assert len(text) < 1.4 * thumbnails.MAX_BYTES
