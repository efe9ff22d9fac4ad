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
from helpers.result_rows import make_failed_pair, make_prompt, make_results, make_sample, make_sample_with

from edgepress.evaluate.report import html, thumbnails
from edgepress.evaluate.results.schema import Results

VOID = {"meta", "link", "input", "br", "img"}
SCRIPTS = 3  # theme, data, the rest


class Outline(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts; fails on unclosed elements."""

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


@pytest.mark.slow
def test_a_hostile_prompt_is_escaped(text: str, outline: Outline) -> None:
    tags = [tag for tag, _ in outline.elements]
    assert tags.count("script") == SCRIPTS
    assert "img" not in tags
    assert HOSTILE not in text
    prompts = {sample["prompt"] for sample in outline.data()["samples"]}
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


def test_ids_are_unique_and_labels_refer_to_them(outline: Outline) -> None:
    names = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(names) == len(set(names))
    for _, attributes in outline.elements:
        for name in ("aria-labelledby", "for"):
            assert attributes.get(name, names[0]) in names


def test_originals_are_linked_relative_to_the_page(outline: Outline, report: Path, image_folder: Path) -> None:
    data = outline.data()
    links = [sample["reference"]["link"] for sample in data["samples"]]
    links += [item["image"]["link"] for item in data["items"] if item["image"]]
    assert {(report / unquote(link)).resolve() for link in links} == set(image_folder.iterdir())
    assert all(" " not in link for link in links)


def test_every_item_has_its_scores(results: Results, outline: Outline) -> None:
    data = outline.data()
    assert len(data["items"]) == 2 * len(results.samples)
    for item in data["items"]:
        pair = results.samples[item["sample"]].variants[item["variant"]]
        assert (item["values"], item["failure"], item["identical"]) == (pair.values, pair.failure, pair.identical)
    assert data["groups"][:2] == ["language: en", "language: zh"]
    assert "kind: a|b </td>" in data["groups"]


@pytest.mark.slow
def test_the_budget_limits_the_embedded_images(results: Results, report: Path) -> None:
    data = Outline(html.render(results, report, max_bytes=200_000)).data()
    embedded = [item for item in data["items"] if item["image"] and item["image"]["index"] is not None]
    assert 0 < len(embedded) < len(data["items"])
    assert sum(len(url) for url in data["images"]) < 1.4 * 200_000
    values = [item["values"]["psnr"] for item in embedded if item["values"]["psnr"] is not None]
    assert min(item["values"].get("psnr") or 99 for item in data["items"]) in values  # the worst one is embedded


def test_a_note_says_how_many_images_are_missing(results: Results, report: Path) -> None:
    identity = results.identity.model_copy(update={"image_folder": "/missing"})
    page = html.render(results.model_copy(update={"identity": identity}), report)
    assert Outline(page).data()["images"] == []
    assert "This page contains 0 of 28 variant images" in page


@pytest.mark.slow
def test_the_gallery_is_sorted_by_the_failed_gate_at_first(results: Results, tmp_path: Path) -> None:
    gates = [gate.model_copy(update={"verdict": "failed"}) if gate.score == "exact" else gate for gate in results.gates]
    text = html.render(results.model_copy(update={"gates": tuple(gates)}), tmp_path)
    assert '<option value="exact" selected>' in text


@pytest.mark.parametrize("failure", [None, "missing"])
def test_a_single_sample_makes_a_page(failure: str | None, tmp_path: Path) -> None:
    prompt = make_prompt("a")
    sample = make_sample_with(prompt, make_failed_pair(failure)) if failure else make_sample(prompt, 30.0)
    Outline(html.render(make_results([sample]), tmp_path))


def test_the_budget_limits_the_page(text: str) -> None:
    assert len(text) < 1.4 * thumbnails.MAX_BYTES
