"""Reads text files as people have them: UTF-8 with or without a byte order mark, or UTF-16 or UTF-32 with one."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from ..common.errors import UserError

# UTF-32's little-endian mark begins with that of UTF-16, so it comes first.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
AFTER_LINE_END = re.compile("(?<=[\r\n])\ufeff")  # the mark of a file that was appended to another one
LINE_END = re.compile(r"\r\n|\r|\n")  # not U+2028 and the like, which a prompt may contain


def read_text_file(path: Path) -> str:
    """Reads a file of prompts as text, without its byte order mark. Line ends stay as they are.

    Raises:
        UserError: The file is missing, is not UTF-8 and has no byte order mark, or contains the character NUL.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"Prompt file {path} cannot be read ({error.strerror}). Give another file.") from error
    mark, encoding = next((entry for entry in BYTE_ORDER_MARKS if content.startswith(entry[0])), (b"", "utf-8"))
    content = content[len(mark) :]
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(split_lines(content[: error.start].decode(encoding, "replace")))
        raise UserError(
            f"Prompt file {path} cannot be read (line {line} is not {encoding.upper()}). It must be a UTF-8 text file."
        ) from error
    if "\0" in text:
        line = len(split_lines(text[: text.index("\0")]))
        raise UserError(
            f"Prompt file {path} cannot be read (line {line} contains the character NUL, as binary files and UTF-16 "
            "without a byte order mark do). It must be a UTF-8 text file."
        )
    return AFTER_LINE_END.sub("", text)


def split_lines(text: str) -> list[str]:
    """Splits a text at the line ends of all systems, and at nothing else."""
    return LINE_END.split(text)
