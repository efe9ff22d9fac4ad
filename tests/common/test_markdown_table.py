"""Tables in Markdown, read back by a parser of it."""

from __future__ import annotations

from markdown_it import MarkdownIt

from edgepress.common.markdown_table import render_table


def test_a_parser_reads_the_cells_and_their_alignment() -> None:
    table = render_table(("name", "size"), [["`a`", "1"], ["b", "2"]], numbers={1})
    html = MarkdownIt("commonmark").enable("table").render(table)
    assert html.count("<tr>") == 3
    assert '<td style="text-align:right">2</td>' in html
    assert "<td><code>a</code></td>" in html
