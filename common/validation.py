"""Says in plain English what is wrong with a value that pydantic rejects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic_core import ErrorDetails

from .errors import escape_controls
from .named_configs import MissingKeyError

MAX_SHOWN, MAX_SHOWN_CHARACTERS = 4, 60  # of an invalid value in a message
MAX_SHOWN_BITS = 1024  # of a number in decimal; Python converts no more than 4300 digits
# What a value must be, by pydantic's type of error; in braces are the limits that pydantic adds.
REQUIREMENTS = {
    "greater_than": "it must be greater than {gt:.16g}",
    "greater_than_equal": "it must be at least {ge:.16g}",
    "less_than": "it must be less than {lt:.16g}",
    "less_than_equal": "it must be at most {le:.16g}",
    "multiple_of": "it must be a multiple of {multiple_of:.16g}",
    "finite_number": "it must be a finite number",
    "literal_error": "it must be {expected}",
    "string_too_short": "it must not be empty",
    "string_too_long": "it must have at most {max_length} characters",
    "string_unicode": "it must be text",
    "too_short": "it must have at least {min_length} entries",
    "too_long": "it must have at most {max_length} entries",
} | {
    prefix + suffix: requirement
    for prefix, requirement in {
        "int": "it must be a whole number",
        "float": "it must be a number",
        "bool": "it must be true or false",
        "string": "it must be text",
        "list": "it must be a list",
        "tuple": "it must be a list",
        "dict": "it must be a mapping of keys to values",
        "model": "it must be a mapping of keys to values",
        "model_attributes": "it must be a mapping of keys to values",
    }.items()
    for suffix in ("_type", "_parsing", "_from_float", "_parsing_size")
}
# The same, by the pattern that a text must match. Every pattern of a schema is here; a test compares.
PATTERNS = {
    r"^[a-z0-9_-]+$": "it may have small letters, digits, '-' and '_'",
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "it must begin with a letter or digit, and may have '.', '-' and '_' besides",
    r"^\d{1,6}(\.\d{1,9})?\s*%$": "it must be a number, or a percentage such as '2 %'",
    r"\S": "it must not be blank",
    r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$": "it must be a width and a height like 512x768, or auto",
    "^[0-9a-f]{64}$": "it must be 64 hexadecimal digits",
}

# What Python and numpy say of values that cannot be converted.
FOREIGN = re.compile(r"invalid literal|could not convert|unpack|cannot convert|setting an array|truth value|broadcast")


def explain_value(details: ErrorDetails) -> str:
    """Says where a value is, what it is, and what it must be; without a final period.

    Args:
        details: An entry of `ValidationError.errors()`.
    """
    key = ".".join(map(str, details["loc"]))
    value, message = details["input"], _explain_type(details)
    if not key:
        return message
    if details["type"] == "missing" and isinstance(details["loc"][-1], int):  # of a list with a fixed number of entries
        return f"{key.rpartition('.')[0]}: entry {details['loc'][-1] + 1} is missing"
    if details["type"] == "missing":
        return f"the key '{key}' is missing"
    if details["type"] == "extra_forbidden":
        return f"there is no key '{key}'"
    if details["type"] == "invalid_key":
        return f"the key '{key}' must be text"
    if isinstance(value, Mapping) and details["type"] == "value_error":  # of a section: the message names the key
        return f"{key}: {message}"
    return f"{key} = {format_value(value)}: {message}"


def describe_value_error(error: Exception) -> str:
    """Says what is wrong with a value of a config by the error that using it raised, in no words of Python.

    Args:
        error: A ValueError of edgepress, whose message says what is wrong, or what Python raises for a value of a wrong
            type.
    """
    if isinstance(error, MissingKeyError):
        return str(error)
    if isinstance(error, KeyError):
        return f"the key {format_value(error.args[0])} is missing"
    is_own = isinstance(error, ValueError) and not FOREIGN.search(str(error))
    return f"a value is missing or invalid ({error})" if is_own else "a value is missing or of a wrong type"


def format_value(value: Any) -> str:
    """A value as it is written in YAML or JSON, in short."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{...}" if value else "{}"
    if isinstance(value, list | tuple):
        entries = [_format_entry(entry) for entry in value[:MAX_SHOWN]]
        return f"[{', '.join(entries)}{', ...' if len(value) > MAX_SHOWN else ''}]"
    if isinstance(value, int) and value.bit_length() > MAX_SHOWN_BITS:
        return _shorten(hex(value))
    return f"'{_shorten(value)}'" if isinstance(value, str) else _shorten(str(value))


def _format_entry(value: Any) -> str:
    """A value within a list; of lists within lists only sizes and the like are shown, since they may be endless."""
    if isinstance(value, list | tuple):
        is_short = len(value) <= MAX_SHOWN and all(isinstance(entry, int | float) for entry in value)
        return format_value(value) if is_short else "[...]"
    return _shorten(value) if isinstance(value, str) else format_value(value)


def _shorten(text: str) -> str:
    """A text cut to a length, in one line."""
    text = escape_controls(text)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"


def _explain_type(details: ErrorDetails) -> str:
    requirement = REQUIREMENTS.get(details["type"])
    if requirement is not None:
        return requirement.format(**details.get("ctx", {}))
    if details["type"] == "string_pattern_mismatch":
        return PATTERNS.get(details["ctx"]["pattern"], "it has another form than it must have")
    message = details["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
