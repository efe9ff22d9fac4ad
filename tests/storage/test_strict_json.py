"""JSON of an artifact: objects with each key once and finite numbers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.storage.strict_json import parse_strict_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.slow
@settings(max_examples=50)
@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=4))
def test_what_json_writes_is_read(content: dict[str, object]) -> None:
    assert parse_strict_json(json.dumps(content)) == content


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1 is not valid JSON"),
        ('{\n"a": 1,\n}', "line 3 is not valid JSON"),
        ("[]", "does not hold a JSON object"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is given twice"),
        ('{"a": NaN}', "the number NaN is not finite"),
        ('{"a": -Infinity}', "the number -Infinity is not finite"),
        ('{"a": 1e999}', "the number 1e999 is not finite"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_the_reason_is_plain(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_strict_json(text)
