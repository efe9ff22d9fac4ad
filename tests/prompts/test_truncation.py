from __future__ import annotations

import pytest

from edgepress.prompts.truncation import describe_truncation, find_ignored_text, warn_once


def test_the_sentence_says_what_is_read_and_what_is_not() -> None:
    assert describe_truncation("a cat on a mat", 20, 16, "a mat") == (
        'Prompt "a cat on a mat" has 20 tokens; the model reads the first 16. It ignores the text from "a mat" on.'
    )
    assert describe_truncation("a cat", 18, 16, "").endswith("It ignores only the end of the chat template.")


def test_the_beginning_may_be_what_is_not_read() -> None:
    assert describe_truncation("a cat on a mat", 20, 16, "a cat", "left") == (
        'Prompt "a cat on a mat" has 20 tokens; the model reads the last 16. It ignores the text up to "a cat".'
    )
    assert describe_truncation("a cat", 18, 16, "", "left").endswith("only the beginning of the chat template.")
    assert describe_truncation("a" * 900, 18, 16, "b" * 90 + "c", "left").endswith(f'up to "…{"b" * 59}c".')


@pytest.mark.parametrize(
    ("max_tokens", "right", "left"),
    [(6, "", ""), (5, "ef", "ab"), (4, "cdef", "abcd"), (2, "abcdef", "abcdef"), (1, "abcdef", "abcdef")],
)
def test_the_text_that_is_removed(max_tokens: int, right: str, left: str) -> None:
    """Of `<abcdef>`, in tokens `<`, `ab`, `cd`, `ef` and `>`, between a first and a last token that are added."""
    offsets = [(0, 0), (0, 1), (1, 3), (3, 5), (5, 7), (7, 8), (0, 0)]
    arguments = ("abcdef", "<abcdef>", offsets, [1, 0, 0, 0, 0, 0, 1], max_tokens)
    assert find_ignored_text(*arguments) == right
    assert find_ignored_text(*arguments, "left") == left


def test_all_is_removed_if_only_added_tokens_are_left() -> None:
    assert find_ignored_text("a", "", [(0, 0), (0, 0)], [1, 1], 1) == "a"


def test_long_prompts_are_shown_in_one_short_line() -> None:
    text = describe_truncation("so many\n\twords " * 1000, 9000, 512, "words " * 1000)
    assert "\n" not in text
    assert text.startswith('Prompt "so many words so many words')
    assert len(text) < 300


def test_a_notice_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    for notice in ("a notice with 100 %", "another notice", "a notice with 100 %"):
        warn_once(notice)
    assert caplog.messages == ["a notice with 100 %", "another notice"]
