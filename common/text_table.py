"""Tables of plain text."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def align_rows(rows: Sequence[Sequence[str]], numbers: Collection[int]) -> list[str]:
    """Pads the cells of a table so that its columns stand below each other, and indents its lines.

    Args:
        rows: The rows, each with as many cells as the first.
        numbers: Indices of the columns that are aligned on the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
