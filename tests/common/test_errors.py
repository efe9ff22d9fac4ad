"""Messages are one line, whatever the names in them are."""

from __future__ import annotations

import pickle
import runpy
from pathlib import Path

import pytest

from edgepress.common.errors import UserError, escape_controls, make_picklable, summarize_error


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


class PlacedError(UserError):
    """An error that cannot be pickled: it takes more than its message."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place} is {reason}. Replace it.")


def test_an_error_that_cannot_be_pickled_becomes_another_one_with_its_text() -> None:
    error = ValueError("wrong")
    assert make_picklable(error) is error
    portable = make_picklable(PlacedError("a.png", "no image"))
    assert type(portable) is UserError
    assert str(pickle.loads(pickle.dumps(portable))) == "a.png is no image. Replace it."

    class LocalError(Exception):
        pass

    assert str(make_picklable(LocalError("wrong"))) == "LocalError: wrong"


def test_an_assertion_without_a_text_says_what_did_not_hold(tmp_path: Path) -> None:
    library = tmp_path / "library.py"
    library.write_text("width, heads = 100, 3\nassert width % heads == 0\n")
    with pytest.raises(AssertionError) as raised:
        runpy.run_path(str(library))
    assert summarize_error(raised.value) == "not fulfilled: width % heads == 0"
    assert summarize_error(AssertionError()) == "AssertionError"  # never raised
    assert summarize_error(AssertionError("heads divide width.")) == "heads divide width"
