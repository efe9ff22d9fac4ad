from __future__ import annotations

import pytest
from helpers.report_results import HOSTILE, make_many_results
from helpers.result_rows import TEXT, make_prompt, make_results, make_sample
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from edgepress.evaluate.metrics.base import Score
from edgepress.evaluate.report import markdown
from edgepress.evaluate.results.schema import Results

MAX_COMMENT_CHARS = 65_536  # of a comment on a pull request


def parse_tokens(text: str) -> list[Token]:
    """All tokens of an independent Markdown parser, inline ones included."""
    blocks = MarkdownIt("commonmark").enable("table").parse(text)
    return [token for block in blocks for token in (block, *(block.children or ()))]


def parse_tables(text: str) -> list[list[list[str]]]:
    """The cells of all tables, as Markdown."""
    tables: list[list[list[str]]] = []
    handlers = {"table_open": lambda: tables.append([]), "tr_open": lambda: tables[-1].append([])}
    in_cell = False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        handlers.get(token.type, lambda: None)()
        in_cell = token.type in ("td_open", "th_open") or (in_cell and token.type not in ("td_close", "th_close"))
        if in_cell and token.type == "inline":
            tables[-1][-1].append(token.content)
    return tables


def test_all_sections_are_there(results: Results) -> None:
    text = markdown.render(results)
    assert text.startswith("## ❌ edgepress: failed")
    for title in (
        "Gates",
        "Quality",
        "Fidelity",
        "Problems",
        "Metrics not measured",
        "McNemar's test",
        "Worst pairs",
        "Groups of int4",
    ):
        assert title in text
    gates = parse_tables(text)[0]
    assert len(gates) == 1 + len(results.gates)
    assert {cells[2].split(" ", 1)[1] for cells in gates[1:]} == {gate.verdict for gate in results.gates}
    quality = parse_tables(text)[1]
    assert quality[1][0] == "text accuracy % ↑"
    assert quality[1][3] == "100.0"
    assert "`missing`" not in text
    assert "size 64x128 instead of 128x128" in text
    assert "no weights were given" in text
    assert "bit-identical" in text


def test_every_row_has_as_many_cells_as_its_header(results: Results) -> None:
    for table in parse_tables(markdown.render(results)):
        assert {len(row) for row in table} == {len(table[0])}


def test_markup_in_prompts_is_escaped(results: Results) -> None:
    text = markdown.render(results)
    tokens = parse_tokens(text)
    assert not [token for token in tokens if token.type in ("link_open", "image", "html_inline")]
    html = "".join(token.content for token in tokens if token.type == "html_block")
    titles = ["Worst pairs", "Groups of int4", "Groups of int8", "Run details"]
    folded = [f"<details><summary>{title}</summary></details>" for title in titles]
    assert html.replace("\n", "") == "".join(folded)
    assert "\u202e" not in text
    assert "\x07" not in text


@pytest.mark.slow
@pytest.mark.parametrize(("num_prompts", "num_variants"), [(1200, 1), (20, 24)])
def test_the_size_is_limited(num_prompts: int, num_variants: int) -> None:
    text = markdown.render(make_many_results(num_prompts, num_variants))
    assert 20_000 < len(text.encode()) <= markdown.MAX_BYTES < MAX_COMMENT_CHARS
    assert "more rows in report.html" in text
    assert text.count("<details>") == text.count("</details>")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_a_code_span_holds_any_text(text: str) -> None:
    (table,) = parse_tables(f"| a | b |\n| --- | --- |\n| x | {markdown.format_code(text)} |\n")
    ((_, cell),) = table[1:]
    (span,) = MarkdownIt("commonmark").parseInline(cell)[0].children or ()
    assert span.type == "code_inline"
    assert len(span.content) <= len(text) + 2


def test_markup_in_titles_of_scores_is_escaped() -> None:
    """Users may add metrics, and the name of a CLIP model is part of its title."""
    hostile = Score(name="psnr", title="a|b <img src=x> `c`", unit="dB")
    text = markdown.render(make_results([make_sample(make_prompt("a"), 30.0)], (hostile,), (TEXT,)))
    assert not [token for token in parse_tokens(text) if token.type == "html_inline"]
    for table in parse_tables(text):
        assert {len(cells) for cells in table} == {len(table[0])}
    texts = {"".join(child.content for child in token.children or ()) for token in parse_tokens(text)}
    assert "a|b <img src=x> `c` dB ↑" in texts


def test_code_spans() -> None:
    assert markdown.format_code("OPEN 花园") == "`OPEN 花园`"
    assert markdown.format_code("a|b") == "`a\\|b`"
    assert markdown.format_code("`") == "`` ` ``"
    assert len(markdown.format_code("x" * 500)) == markdown.MAX_CODE_CHARS + 2
    assert "\n" not in markdown.format_code(HOSTILE + "\nx")


def test_results_without_gates_or_text_are_shown() -> None:
    text = markdown.render(make_results([make_sample(make_prompt("a"), None, (None, None))]))
    assert text.startswith("## 📏")
    assert "### Gates" not in text
    assert "Identical pairs, for which PSNR is undefined: `int4`: 1 of 1." in text
