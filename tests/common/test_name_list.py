"""Names in a message."""

from __future__ import annotations

from edgepress.common.name_list import list_names


def test_many_names_are_counted() -> None:
    assert list_names("abc") == "a, b, c"
    assert list_names("abcdefg") == "a, b, c, d, e and 2 more"
    assert list_names(iter("abc"), 1) == "a and 2 more"
    assert list_names(()) == ""
