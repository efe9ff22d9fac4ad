from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.common.suggest import find_misspelling, suggest_name

NAMES = ["orin", "pi5", "rk3588"]


def test_a_typo_is_answered_with_the_name_that_was_meant() -> None:
    assert suggest_name("rk3558", NAMES) == "did you mean 'rk3588'?"


def test_a_misspelling_differs_by_a_letter_or_two() -> None:
    assert find_misspelling("shfit", ["shift", "base_shift"]) == "shift"
    assert find_misspelling("size", ["shift", "base_shift"]) is None


def test_a_name_like_none_is_answered_with_all_of_them() -> None:
    assert suggest_name("laptop", NAMES) == "known: orin, pi5, rk3588."


@settings(max_examples=40)
@given(st.text("abcd", max_size=9), st.lists(st.text("abc", min_size=1), max_size=5))
def test_whatever_is_suggested_is_known(name: str, known: list[str]) -> None:
    answer = suggest_name(name, known)
    assert answer == f"known: {', '.join(known)}." or answer.removeprefix("did you mean ")[1:-2] in known


@given(st.lists(st.text("abc", min_size=1), min_size=1, max_size=5))
def test_a_known_name_is_most_similar_to_itself(known: list[str]) -> None:
    assert suggest_name(known[0], known) == f"did you mean '{known[0]}'?"
