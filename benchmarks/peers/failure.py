"""Why a peer could not be measured, in a line."""

from __future__ import annotations

import re
from pathlib import Path

# Python's and pip's last word, or the bare name of an exception.
ERROR = re.compile(r"^(ERROR: |error: |[\w.]*(Error|Exception|Exit|Interrupt)(: |$))")
COLOUR = re.compile(r"\x1b\[[\d;]*m")
LONGEST = 160


class PeerError(Exception):
    """One sentence that stands in the table."""


def cause(log: Path) -> str:
    """The last line of a log that names an error, or else its last line."""
    text = COLOUR.sub("", log.read_text("utf-8", errors="replace"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = [line for line in lines if ERROR.match(line)] or lines[-1:] or ["it ended without a word"]
    line = found[-1].removeprefix("ERROR: ").removeprefix("error: ").replace("|", "/")
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
