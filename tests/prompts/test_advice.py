"""Advice on prompts."""

from __future__ import annotations

import pytest

from edgepress.prompts.advice import advise_on_prompt


@pytest.mark.parametrize(
    "text",
    [
        'a plain white wall, large red letters, top: "OPEN"',
        "白墙红字：“花园OPEN”",
        "a superb teapot, supermarket in the background",
        "红色 apple，白色 table",
        "3只猫",
        'a sign that says "perfect"',
        "",
    ],
)
def test_prompts_that_need_none(text: str) -> None:
    assert advise_on_prompt(text) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("A BEAUTIFUL, stunning house", '"beautiful", "stunning"'),
        ("完美的房子", '"完美"'),
        ("红色apple在桌上", '"红色apple在桌上"'),
    ],
)
def test_advice_names_the_place(text: str, place: str) -> None:
    (sentence,) = advise_on_prompt(text)
    assert place in sentence
    assert sentence.endswith(".")
