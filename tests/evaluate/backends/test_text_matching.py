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


def scores(expected: list[str], recognized: list[str], language: Language = "en") -> tuple[float | None, ...]:
    values = score_text(expected, recognized, language)
    return values["text_accuracy"], values["exact"], values["ned"]


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
def test_normalize_text(text: str, language: Language, expected: str) -> None:
    assert normalize_text(text, language) == expected


@pytest.mark.slow
@given(st.text(max_size=20), LANGUAGES)
def test_normalization_is_idempotent(text: str, language: Language) -> None:
    once = normalize_text(text, language)
    assert normalize_text(once, language) == once


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2), ("开门大吉", "开门大古", 1)],
)
def test_edit_distance(a: str, b: str, expected: int) -> None:
    assert edit_distance(a, b) == expected


@cache
def distance_by_definition(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(
        distance_by_definition(a[1:], b) + 1,
        distance_by_definition(a, b[1:]) + 1,
        distance_by_definition(a[1:], b[1:]) + (a[0] != b[0]),
    )


@pytest.mark.slow
@given(SHORT, SHORT)
def test_edit_distance_equals_the_definition_and_is_symmetric(a: str, b: str) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == distance_by_definition(a, b)


@given(SHORT, SHORT)
def test_similarity_is_1_for_equal_texts_only(a: str, b: str) -> None:
    assert 0 <= similarity(a, b) <= 1
    assert (similarity(a, b) == 1) == (a == b)


def test_correct_text_scores_1() -> None:
    assert scores(["GOOD", "VOW"], ["Good", "vow"]) == (1, 1, 1)


def test_wrong_spaces_are_tolerated() -> None:
    assert scores(["GOOD", "VOW"], ["G OOD", "VOW"]) == (1, 1, 1)
    assert scores(["GRAND OPENING"], ["GRANDOPENING"]) == (1, 1, 1)
    assert scores(["GRAND OPENING"], ["GRAND", "OPENING"]) == (1, 1, 1)
    assert word_recall(["good food"], ["g ood fo xd"]) == 0.5


def test_repeated_words_are_counted() -> None:
    assert word_recall(["go go"], ["go"]) == 0.5
    assert word_recall(["go"], ["go go go"]) == 1
    assert word_recall(["abc", "a", "b", "c"], ["a b c"]) == 0.75  # the tokens count, not the word that they spell


def test_tokens_around_a_counted_word_do_not_become_neighbors() -> None:
    assert word_recall(["x ab"], ["a x b"]) == 0.5


def test_wrong_letter_costs_a_word_and_its_share_of_the_text() -> None:
    accuracy, exact, similarity = scores(["GOOD", "VOW"], ["GOD", "VOW"])
    assert (accuracy, exact) == (0.5, 0)
    assert similarity == pytest.approx(6 / 7)


def test_extra_text_only_affects_exact() -> None:
    assert scores(["SALE"], ["SALE", "zzzz"]) == (1, 0, 1)


def test_no_recognized_text_scores_0() -> None:
    assert scores(["SALE"], []) == (0, 0, 0)


def test_mixed_text_counts_chinese_characters_and_other_words() -> None:
    expected = ["小心地滑", "WET FLOOR"]
    assert scores(expected, ["小心地滑", "WET FLOOR"], "mixed") == (1, 1, 1)
    assert scores(expected, ["小心地滑WET FLOOR"], "mixed")[0] == 1  # joined lines are tolerated
    assert scores(expected, ["小心滑", "WET FLOOD"], "mixed")[0] == pytest.approx(4 / 6)
    assert scores(expected, ["小心地滑"], "mixed")[0] == pytest.approx(4 / 6)
    assert scores(["请进", "PUSH"], ["进请", "PUSH"], "mixed")[0] == 1  # order does not matter


def test_order_of_characters_only_affects_ned() -> None:
    assert character_recall(["图书馆欢迎光临"], ["临光迎欢馆书图"]) == 1
    assert edit_similarity(["图书馆欢迎光临"], ["临光迎欢馆书图"]) == pytest.approx(1 / 7)


def test_repeated_characters_are_counted() -> None:
    assert character_recall(["明明星"], ["明", "星星"]) == pytest.approx(2 / 3)


def test_recognized_line_matches_only_one_expected_line() -> None:
    assert edit_similarity(["go", "go"], ["go"]) == 0.5
    assert edit_similarity(["ab", "abc"], ["abc", "xxxxxx"]) == pytest.approx(3 / 5)


@pytest.mark.parametrize("expected", [[], ["?!"], [" "]])
def test_no_expected_text_has_no_scores(expected: list[str]) -> None:
    assert scores(expected, ["SALE"]) == (None, None, None)


@pytest.mark.slow
@given(LINES, LINES, LANGUAGES)
def test_scores_are_in_0_to_1_and_exact_text_scores_1(
    expected: list[str], recognized: list[str], language: Language
) -> None:
    values = scores(expected, recognized, language)
    if values[1] is None:
        assert values == (None, None, None)
    else:
        assert all(value is not None and 0 <= value <= 1 for value in values)
        assert values[1] == 0 or values == (1, 1, 1)


@pytest.mark.slow
@given(LINES, LANGUAGES)
def test_equal_text_scores_1(lines: list[str], language: Language) -> None:
    assert scores(lines, lines, language) in [(1, 1, 1), (None, None, None)]


@pytest.mark.slow
@given(LINES, LINES)
def test_word_recall_is_at_least_the_recall_of_multisets(expected: list[str], recognized: list[str]) -> None:
    from collections import Counter

    counts, recognized_counts = (
        Counter(word for line in lines for word in normalize_text(line, "en").split())
        for lines in (expected, recognized)
    )
    accuracy = score_text(expected, recognized, "en")["text_accuracy"]
    if accuracy is not None:
        assert accuracy >= (counts & recognized_counts).total() / counts.total() - 1e-12
