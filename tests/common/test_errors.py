"""Messages are one line, whatever the names in them are."""

from __future__ import annotations

import pickle

import pytest

from edgepress.common.errors import UserError, escape_controls, summarize_error


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x1b[2J\x07\x9b31m\x7f", r"\x1b[2J\x07\x9b31m\x7f"),
        ("line\u2028paragraph\u2029", r"line\u2028paragraph\u2029"),
        ("safe\u202egnp.exe", r"safe\u202egnp.exe"),
        ("\udc80", r"\udc80"),
        ("红 café\u3000🙂", "红 café\u3000🙂"),  # a wide space is no control
    ],
)
def test_a_message_takes_one_line_and_cannot_steer_a_terminal(text: str, shown: str) -> None:
    assert escape_controls(text) == shown
    assert str(UserError(text)) == shown
    assert str(pickle.loads(pickle.dumps(UserError(text)))) == shown


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("Validation error for field 'width':\n    TypeError: Field 'width' expected int."), None),
        (ValueError(), "ValueError"),
        (ValueError("x" * 300), "x" * 200 + "…"),
    ],
)
def test_errors_of_libraries_take_one_line(error: Exception, text: str | None) -> None:
    assert summarize_error(error) == (
        text or "Validation error for field 'width': TypeError: Field 'width' expected int"
    )
