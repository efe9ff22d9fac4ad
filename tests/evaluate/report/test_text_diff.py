from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepress.evaluate.report.text_diff import DiffSpan, diff_text

LINES = st.lists(st.text("aAbB春夏，. !ﬁ", max_size=8), max_size=3)


def counted(text: str) -> str:
    """What scores count of a text, by the rules of text_scores."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(one for one in folded if not one.isspace() and not unicodedata.category(one).startswith("P"))


@pytest.mark.parametrize(
    ("wanted", "read", "pieces"),
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
def test_compare(wanted: list[str], read: list[str], pieces: list[tuple[str, str]]) -> None:
    assert [tuple(piece) for piece in diff_text(wanted, read)] == pieces


@given(LINES, LINES)
def test_nothing_is_lost(wanted: list[str], read: list[str]) -> None:
    pieces = diff_text(wanted, read)
    assert "".join(piece.text for piece in pieces if piece.kind != "missing") == "\n".join(read)
    kept = counted("".join(piece.text for piece in pieces if piece.kind != "extra"))
    assert kept == counted("".join(wanted))
    assert all(piece.text for piece in pieces)
    assert all(one.kind != other.kind for one, other in pairwise(pieces))


@given(LINES)
def test_a_text_equals_itself(lines: list[str]) -> None:
    assert all(piece == DiffSpan("same", piece.text) for piece in diff_text(lines, lines))
