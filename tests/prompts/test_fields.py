from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.common.errors import UserError
from edgepress.prompts import fields
from edgepress.prompts.entries import Entry


def make_entry(value: Any) -> Entry:
    return Entry("set.jsonl:3", {"key": value})


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("", "key is empty"),
        (" ", "key is empty"),
        ("../a", "is a path"),
        ("a\\b", "is a path"),
        (".a", "is a path"),
        ("a ", "begins or ends with a space"),
        ("a\nb", "control character"),
        ("字" * 67, "longer than 200 bytes"),
        (True, "key is true, which is no text"),
        (1.5, "key is 1.5, which is no text"),
        (None, "key is null, which is no text"),
        ("a\0b", "NUL"),
    ],
)
def test_what_cannot_be_a_name_of_a_file_is_no_id(value: Any, problem: str) -> None:
    with pytest.raises(UserError, match=rf"^set\.jsonl:3: .*{problem}"):
        fields.parse_id(make_entry(value), "key")


def test_whole_numbers_are_ids() -> None:
    assert fields.parse_id(make_entry(7), "key") == "7"


@pytest.mark.parametrize(
    ("parse", "value", "problem"),
    [
        (fields.parse_text, None, "the key is missing"),
        (fields.parse_text, 5, "key is 5, which is no text"),
        (fields.parse_text, "\ud800", "half of a surrogate pair"),
        (fields.require_text, " \n", r'must be a non-empty string, not " \n"'),
        (fields.parse_language, "de", 'key is "de". Write one of en, zh, mixed'),
        (fields.parse_language, ["en"], "Write one of en, zh, mixed"),
        (fields.parse_lines, "SALE", "Write a list of texts"),
        (fields.parse_lines, ["SALE", 5], "Write a list of texts"),
        (fields.parse_lines, ["a\0"], "NUL"),
        (fields.parse_categories, ["size"], "Write names with texts"),
        (fields.parse_categories, {"size": 5}, "Write names with texts"),
        (fields.parse_categories, {"\0": "a"}, "NUL"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(parse: Any, value: Any, problem: str) -> None:
    with pytest.raises(UserError, match=r"^set\.jsonl:3: ") as caught:
        parse(make_entry(value), "key")
    assert problem in str(caught.value)


def test_right_values_are_taken_as_they_are() -> None:
    assert fields.parse_text(make_entry(" a "), "key") == fields.require_text(make_entry(" a "), "key") == " a "
    assert [fields.parse_language(make_entry(name), "key") for name in ("en", "zh", "mixed")] == ["en", "zh", "mixed"]
    assert fields.parse_lines(make_entry(["SALE", ""]), "key") == ("SALE", "")
    assert fields.parse_categories(make_entry({"size": "small"}), "key") == {"size": "small"}


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_a_value_in_a_message_is_its_json_or_the_beginning_of_it(value: Any) -> None:
    text = fields.shorten(value)
    text.encode()  # can be printed
    assert len(text) <= 60
    if not text.endswith("…"):
        assert json.loads(text) == value or "\\ud" in text
    else:
        assert len(json.dumps(value, ensure_ascii=False)) >= 60
