from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepress.evaluate.backends.text_matching import (
    character_recall,
    edit_distance,
    edit_similarity,
    normalize_text,
    score_text,
    similarity,
    word_recall,
)
from edgepress.prompts.prompt import Language

SHORT = st.text("abc", max_size=6)
LINES = st.lists(st.text("abO春 ,", max_size=6), max_size=4)
LANGUAGES = st.sampled_from(["en", "zh", "mixed"])


def scores(wanted: list[str], read: list[str], language: Language = "en") -> tuple[float | None, ...]:
    found = score_text(wanted, read, language)
    return found["text_accuracy"], found["exact"], found["ned"]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("ＯＰＥＮ！", "en", "open"),
        ("  Grand \t Opening ", "en", "grand opening"),
        ("Don't-stop", "en", "dontstop"),
        ("STRASSE straße", "en", "strasse strasse"),
        ("欢迎， 光临。", "zh", "欢迎光临"),
        ("體 体", "zh", "體体"),
        ("!?", "en", ""),
        ("A出口， EXIT A", "mixed", "a 出 口 exit a"),
        ("３号线Ｌｉｎｅ 3", "mixed", "3 号 线 line 3"),
    ],
)
def test_normalise(text: str, language: Language, expected: str) -> None:
    assert normalize_text(text, language) == expected


@given(st.text(max_size=20), LANGUAGES)
def test_normalising_twice_changes_nothing(text: str, language: Language) -> None:
    once = normalize_text(text, language)
    assert normalize_text(once, language) == once


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("开门大吉", "开门大古", 1)],
)
def test_edit_distance(one: str, other: str, expected: int) -> None:
    assert edit_distance(one, other) == expected


@cache
def distance_by_definition(one: str, other: str) -> int:
    if not one or not other:
        return len(one) + len(other)
    return min(
        distance_by_definition(one[1:], other) + 1,
        distance_by_definition(one, other[1:]) + 1,
        distance_by_definition(one[1:], other[1:]) + (one[0] != other[0]),
    )


@given(SHORT, SHORT)
def test_edit_distance_is_that_of_the_definition_and_symmetric(one: str, other: str) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == distance_by_definition(one, other)


@given(SHORT, SHORT)
def test_similarity_is_1_for_equal_texts_only(one: str, other: str) -> None:
    assert 0 <= similarity(one, other) <= 1
    assert (similarity(one, other) == 1) == (one == other)


def test_right_text_scores_1() -> None:
    assert scores(["GOOD", "VOW"], ["Good", "vow"]) == (1, 1, 1)


def test_spaces_that_ocr_puts_or_drops_are_forgiven() -> None:
    assert scores(["GOOD", "VOW"], ["G OOD", "VOW"]) == (1, 1, 1)
    assert scores(["GRAND OPENING"], ["GRANDOPENING"]) == (1, 1, 1)
    assert scores(["GRAND OPENING"], ["GRAND", "OPENING"]) == (1, 1, 1)
    assert word_recall(["good food"], ["g ood fo xd"]) == 0.5


def test_words_count_as_often_as_wanted() -> None:
    assert word_recall(["go go"], ["go"]) == 0.5
    assert word_recall(["go"], ["go go go"]) == 1
    assert word_recall(["abc", "a", "b", "c"], ["a b c"]) == 0.75  # the three tokens, not the word that they spell


def test_tokens_around_a_counted_word_do_not_become_neighbours() -> None:
    assert word_recall(["x ab"], ["a x b"]) == 0.5


def test_a_wrong_letter_costs_its_word_and_its_share_of_the_text() -> None:
    accuracy, exact, near = scores(["GOOD", "VOW"], ["GOD", "VOW"])
    assert (accuracy, exact) == (0.5, 0)
    assert near == pytest.approx(6 / 7)


def test_extra_text_is_seen_by_exact_alone() -> None:
    assert scores(["SALE"], ["SALE", "zzzz"]) == (1, 0, 1)


def test_nothing_read_scores_0() -> None:
    assert scores(["SALE"], []) == (0, 0, 0)


def test_mixed_text_counts_chinese_by_characters_and_the_rest_by_words() -> None:
    wanted = ["小心地滑", "WET FLOOR"]
    assert scores(wanted, ["小心地滑", "WET FLOOR"], "mixed") == (1, 1, 1)
    assert scores(wanted, ["小心地滑WET FLOOR"], "mixed")[0] == 1  # OCR that joins lines costs nothing
    assert scores(wanted, ["小心滑", "WET FLOOD"], "mixed")[0] == pytest.approx(4 / 6)
    assert scores(wanted, ["小心地滑"], "mixed")[0] == pytest.approx(4 / 6)
    assert scores(["请进", "PUSH"], ["进请", "PUSH"], "mixed")[0] == 1  # order does not count


def test_order_of_characters_is_seen_by_ned_alone() -> None:
    assert character_recall(["图书馆欢迎光临"], ["临光迎欢馆书图"]) == 1
    assert edit_similarity(["图书馆欢迎光临"], ["临光迎欢馆书图"]) == pytest.approx(1 / 7)


def test_characters_count_as_often_as_wanted() -> None:
    assert character_recall(["明明星"], ["明", "星星"]) == pytest.approx(2 / 3)


def test_one_read_line_is_not_the_best_line_of_two_wanted_ones() -> None:
    assert edit_similarity(["go", "go"], ["go"]) == 0.5
    assert edit_similarity(["ab", "abc"], ["abc", "xxxxxx"]) == pytest.approx(3 / 5)


@pytest.mark.parametrize("wanted", [[], ["?!"], [" "]])
def test_without_wanted_text_nothing_is_measured(wanted: list[str]) -> None:
    assert scores(wanted, ["SALE"]) == (None, None, None)


@given(LINES, LINES, LANGUAGES)
def test_scores_are_in_0_to_1_and_exact_text_scores_1(wanted: list[str], read: list[str], language: Language) -> None:
    found = scores(wanted, read, language)
    if found[1] is None:
        assert found == (None, None, None)
    else:
        assert all(value is not None and 0 <= value <= 1 for value in found)
        assert found[1] == 0 or found == (1, 1, 1)


@given(LINES, LANGUAGES)
def test_reading_what_is_wanted_scores_1(lines: list[str], language: Language) -> None:
    assert scores(lines, lines, language) in [(1, 1, 1), (None, None, None)]


@given(LINES, LINES)
def test_recall_of_words_is_at_least_the_plain_multiset_recall(wanted: list[str], read: list[str]) -> None:
    from collections import Counter

    asked = Counter(word for line in wanted for word in normalize_text(line, "en").split())
    given_ = Counter(word for line in read for word in normalize_text(line, "en").split())
    accuracy = score_text(wanted, read, "en")["text_accuracy"]
    if accuracy is not None:
        assert accuracy >= (asked & given_).total() / asked.total() - 1e-12
