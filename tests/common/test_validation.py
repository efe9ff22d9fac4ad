"""Values in messages."""

from __future__ import annotations

import pytest

from edgepress.common.validation import format_value


@pytest.mark.parametrize(
    ("value", "text"),
    [("a\nb", r"'a\nb'"), ("\x1b[2J", r"'\x1b[2J'"), ("红 café", "'红 café'"), (["a\n"], r"[a\n]"), ("x" * 61, None)],
)
def test_a_value_takes_one_line_and_cannot_steer_a_terminal(value: object, text: str | None) -> None:
    assert format_value(value) == (text or f"'{'x' * 60}…'")
