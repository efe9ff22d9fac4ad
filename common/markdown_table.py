"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int] = ()) -> str:
    """Returns a table in Markdown.

    Args:
        header: The titles of its columns.
        rows: The cells of each row, in Markdown: a vertical bar in a cell is escaped by who wrote it.
        numbers: Columns of numbers, which are aligned to the right.
    """
    rule = ["---:" if column in numbers else "---" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, rule, *rows])
