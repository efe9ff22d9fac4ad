"""Shipped prompt sets: their size, ids, texts, languages and categories."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from edgepress.evaluate.backends.text_matching import score_text
from edgepress.prompts import sets
from edgepress.prompts.prompt import Prompt, is_cjk

SETS = ("text-en", "text-zh", "text-mixed", "compose", "style", "photo", "smoke")
QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”')


def test_there_are_500_prompts_without_duplicates() -> None:
    prompts = [prompt for name in sets.prompt_set_names() for prompt in sets.load_prompt_set(name)]
    assert sum(len(sets.load_prompt_set(name)) for name in SETS) >= 500
    assert [text for text, count in Counter(prompt.prompt for prompt in prompts).items() if count > 1] == []
    assert [name for name, count in Counter(prompt.id for prompt in prompts).items() if count > 1] == []


@pytest.mark.parametrize("name", SETS)
def test_lines_are_what_the_prompt_quotes(name: str) -> None:
    for prompt in sets.load_prompt_set(name):
        assert prompt.lines == tuple(double or single for double, single in QUOTED.findall(prompt.prompt)), prompt.id
        if prompt.lines:  # the text itself scores 1
            assert score_text(prompt.lines, prompt.lines, prompt.language)["exact"] == 1, prompt.id


@pytest.mark.parametrize("name", SETS)
def test_the_language_is_that_of_the_script(name: str) -> None:
    for prompt in sets.load_prompt_set(name):
        assert prompt.language == detect_language(prompt), prompt.id


def detect_language(prompt: Prompt) -> str:
    """The language of the text to show, or else of the prompt."""
    text = " ".join(prompt.lines) or prompt.prompt
    chinese, words = any(map(is_cjk, text)), re.findall("[A-Za-z]{2,}", text)
    return "mixed" if chinese and words else "zh" if chinese else "en"


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("text-en", {"scene", "layout", "regions", "length"}),
        ("text-zh", {"scene", "layout", "regions", "length"}),
        ("text-mixed", {"scene", "layout", "regions", "length"}),
        ("compose", {"skill"}),
        ("style", {"style"}),
        ("photo", {"subject"}),
        ("smoke", {"kind"}),
    ],
)
def test_every_prompt_of_a_set_has_the_same_categories(name: str, keys: set[str]) -> None:
    assert {frozenset(prompt.categories) for prompt in sets.load_prompt_set(name)} == {frozenset(keys)}


def test_text_sets_ask_for_one_to_five_regions() -> None:
    for name in ("text-en", "text-zh"):
        regions = Counter(prompt.categories["regions"] for prompt in sets.load_prompt_set(name))
        assert set(regions) == {"1", "2", "3", "4", "5"}


@pytest.mark.parametrize("name", ["compose", "style", "photo"])
def test_the_first_prompts_of_a_set_are_of_both_languages(name: str) -> None:
    """`--limit` takes from the start."""
    assert {prompt.language for prompt in sets.load_prompt_set(name)[:4]} == {"en", "zh"}
