"""The board kit: what an artifact's folder holds for the owner of a board to try it and to report."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

SCRIPT = "check_board.py"


def write_board_kit(folder: Path) -> None:
    """Lays the script beside the parts; it needs rknn-toolkit-lite2 and numpy, and nothing of edgepress."""
    text = (files(__package__) / "board" / SCRIPT).read_text("utf-8")
    (folder / SCRIPT).write_text(text, "utf-8")
