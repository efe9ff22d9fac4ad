from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepress.evaluate.report.text_diff import DiffSpan, diff_text

LINES = st.lists(st.text("aAbB春夏，. !ﬁ", max_size=8), max_size=3)


def normalize(text: str) -> str:
    """The characters of a text that the scores compare."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in folded if not char.isspace() and not unicodedata.category(char).startswith("P"))


@pytest.mark.parametrize(
    ("expected", "recognized", "spans"),
    [
        (["OPEN"], ["OPEN"], [("same", "OPEN")]),
        (["OPEN"], ["open"], [("same", "open")]),
        (["OPEN"], ["OPFN"], [("same", "OP"), ("missing", "E"), ("extra", "F"), ("same", "N")]),
        (["OPEN"], [], [("missing", "OPEN")]),
        ([], ["OPEN"], [("extra", "OPEN")]),
        (["NO YET"], ["NO", "YET!"], [("same", "NO\nYET!")]),
        (["书店"], ["节店"], [("missing", "书"), ("extra", "节"), ("same", "店")]),
        ([], [], []),
    ],
)
def test_diff(expected: list[str], recognized: list[str], spans: list[tuple[str, str]]) -> None:
    assert [tuple(span) for span in diff_text(expected, recognized)] == spans


@given(LINES, LINES)
def test_both_texts_can_be_restored(expected: list[str], recognized: list[str]) -> None:
    spans = diff_text(expected, recognized)
    assert "".join(span.text for span in spans if span.kind != "missing") == "\n".join(recognized)
    restored = normalize("".join(span.text for span in spans if span.kind != "extra"))
    assert restored == normalize("".join(expected))
    assert all(span.text for span in spans)
    assert all(first.kind != second.kind for first, second in pairwise(spans))


@given(LINES)
def test_equal_texts_have_no_difference(lines: list[str]) -> None:
    assert all(span == DiffSpan("same", span.text) for span in diff_text(lines, lines))
