"""The board kit: a script in the exported folder that checks the parts on a board and reports the result."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

SCRIPT = "check_board.py"


def write_board_kit(folder: Path) -> None:
    """Copies the script to a folder. It needs rknn-toolkit-lite2 and numpy, but not edgepress."""
    text = (files(__package__) / "board" / SCRIPT).read_text("utf-8")
    (folder / SCRIPT).write_text(text, "utf-8")
