from __future__ import annotations

import pytest

from edgepress.prompts.truncation import describe_truncation, warn_once


def test_the_sentence_says_what_is_read_and_what_is_not() -> None:
    assert describe_truncation("a cat on a mat", 20, 16, "a mat") == (
        'Prompt "a cat on a mat" has 20 tokens; the model reads the first 16. It ignores the text from "a mat" on.'
    )
    assert describe_truncation("a cat", 18, 16, "").endswith("It ignores only the end of the chat template.")


def test_long_prompts_are_shown_in_one_short_line() -> None:
    text = describe_truncation("so many\n\twords " * 1000, 9000, 512, "words " * 1000)
    assert "\n" not in text
    assert text.startswith('Prompt "so many words so many words')
    assert len(text) < 300


def test_a_notice_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    for notice in ("a notice with 100 %", "another notice", "a notice with 100 %"):
        warn_once(notice)
    assert caplog.messages == ["a notice with 100 %", "another notice"]
