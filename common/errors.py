"""The exception for mistakes that users can fix, whose message is one line."""

from __future__ import annotations

import pickle
import traceback
import unicodedata

CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")  # categories of characters that end lines, move the cursor or turn text

MAX_SUMMARY = 200  # characters


class UserError(Exception):
    """Invalid input, or a condition that the user can change, such as a missing file.

    The message says what is wrong, where, and what to do. The library raises it; the command line prints the message
    without a traceback and exits with code 2.

    Args:
        message: The message. Names from files are part of many, so line breaks and other control characters are shown
            as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(escape_controls(message))


def escape_controls(text: str) -> str:
    r"""A text in one line that any terminal shows as it is: control characters become escapes, such as `\n`."""
    if text.isprintable():
        return text
    return "".join(map(_escape, text))


def summarize_error(error: BaseException) -> str:
    """What an error of a library says, in one line, cut to a length and without a final period.

    Of an error of the system, that is what it calls the error, without its number and the path.
    """
    text = " ".join(_describe(error).split()) or type(error).__name__
    return (text if len(text) <= MAX_SUMMARY else f"{text[:MAX_SUMMARY]}…").rstrip(".:")


def make_picklable(error: Exception) -> Exception:
    """Returns an error that can be pickled: the same, or if its class cannot, another one with its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # classes of libraries may raise anything
        text = str(error)
        return UserError(text) if isinstance(error, UserError) else RuntimeError(f"{type(error).__name__}: {text}")
    return error


def _read_assertion(error: AssertionError) -> str:
    """What did not hold, from the source of a library whose assertion says nothing else."""
    frames = traceback.extract_tb(error.__traceback__)
    line = (frames[-1].line or "") if frames else ""
    return f"not fulfilled: {line.removeprefix('assert ')}" if line.startswith("assert ") else ""


def _describe(error: BaseException) -> str:
    if isinstance(error, AssertionError) and not str(error):
        return _read_assertion(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return f"it is not {error.encoding.upper()} text"
    return str(error)


def _escape(character: str) -> str:
    if unicodedata.category(character) not in CONTROLS:
        return character
    return character.encode("unicode_escape").decode("ascii")
