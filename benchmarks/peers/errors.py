"""The error of a peer that could not be measured, in one line."""

from __future__ import annotations

import re
from pathlib import Path

# The last line of an error of Python or pip, or only the name of an exception.
ERROR_PATTERN = re.compile(r"^(ERROR: |error: |[\w.]*(Error|Exception|Exit|Interrupt)(: |$))")
ANSI_COLOR = re.compile(r"\x1b\[[\d;]*m")
MAX_LENGTH = 160


class PeerError(Exception):
    """A peer could not be measured. The message is shown in the table."""


def find_cause(log: Path) -> str:
    """Returns the last line of a log that names an error, or else its last line."""
    text = ANSI_COLOR.sub("", log.read_text("utf-8", errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if ERROR_PATTERN.match(line)] or lines[-1:] or ["no output"]
    line = errors[-1].removeprefix("ERROR: ").removeprefix("error: ").replace("|", "/")
    return line if len(line) <= MAX_LENGTH else f"{line[: MAX_LENGTH - 1]}…"
