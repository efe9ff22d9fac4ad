from __future__ import annotations

import pytest
from helpers.report_results import HOSTILE, make_many_results
from helpers.result_rows import TEXT, make_prompt, make_results, sample_result
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from edgepress.evaluate.metrics.base import Score
from edgepress.evaluate.report import markdown
from edgepress.evaluate.results.schema import Results

CAP = 65_536  # of a comment on a pull request


def parsed(text: str) -> list[Token]:
    """What an independent reader of Markdown with tables makes of it, the tokens within lines included."""
    top = MarkdownIt("commonmark").enable("table").parse(text)
    return [token for one in top for token in (one, *(one.children or ()))]


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every table, as source."""
    found: list[list[list[str]]] = []
    kind = {"table_open": lambda: found.append([]), "tr_open": lambda: found[-1].append([])}
    inside = False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        kind.get(token.type, lambda: None)()
        inside = token.type in ("td_open", "th_open") or (inside and token.type not in ("td_close", "th_close"))
        if inside and token.type == "inline":
            found[-1][-1].append(token.content)
    return found


def test_everything_that_matters_is_there(results: Results) -> None:
    text = markdown.render(results)
    assert text.startswith("## ❌ edgepress: failed")
    for title in (
        "Gates",
        "Quality",
        "Fidelity",
        "Failures and defects",
        "Not measured",
        "Worst pairs",
        "Groups of int4",
    ):
        assert title in text
    gates = tables(text)[0]
    assert len(gates) == 1 + len(results.gates)
    assert {cells[2].split(" ", 1)[1] for cells in gates[1:]} == {gate.verdict for gate in results.gates}
    quality = tables(text)[1]
    assert quality[1][0] == "text accuracy % ↑"
    assert quality[1][3] == "100.0"
    assert "`missing`" not in text
    assert "size 64x128 instead of 128x128" in text
    assert "no weights were given" in text
    assert "to the bit" in text


def test_every_row_has_the_cells_of_its_head(results: Results) -> None:
    for table in tables(markdown.render(results)):
        assert {len(row) for row in table} == {len(table[0])}


def test_nothing_of_a_prompt_becomes_markup(results: Results) -> None:
    text = markdown.render(results)
    tokens = parsed(text)
    assert not [token for token in tokens if token.type in ("link_open", "image", "html_inline")]
    html = "".join(token.content for token in tokens if token.type == "html_block")
    titles = ["Worst pairs", "Groups of int4", "Groups of int8", "What was measured on, and with what"]
    folds = [f"<details><summary>{title}</summary></details>" for title in titles]
    assert html.replace("\n", "") == "".join(folds)
    assert "\u202e" not in text
    assert "\x07" not in text


@pytest.mark.parametrize(("prompts", "variants"), [(1200, 1), (20, 24)])
def test_it_never_grows_beyond_what_ci_takes(prompts: int, variants: int) -> None:
    text = markdown.render(make_many_results(prompts, variants))
    assert 20_000 < len(text.encode()) <= markdown.MAX_BYTES < CAP
    assert "more rows stand in report.html" in text
    assert text.count("<details>") == text.count("</details>")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_a_code_span_holds_any_text(text: str) -> None:
    (cell,) = [cells[1] for cells in tables(f"| a | b |\n| --- | --- |\n| x | {markdown.format_code(text)} |\n")[0][1:]]
    (span,) = MarkdownIt("commonmark").parseInline(cell)[0].children or ()
    assert span.type == "code_inline"
    assert len(span.content) <= len(text) + 2


def test_titles_of_scores_are_cells_and_no_markup() -> None:
    """A metric is anybody's, and a CLIP's name is part of its title."""
    hostile = Score(name="psnr", title="a|b <img src=x> `c`", unit="dB")
    text = markdown.render(make_results([sample_result(make_prompt("a"), 30.0)], (hostile,), (TEXT,)))
    assert not [token for token in parsed(text) if token.type == "html_inline"]
    for table in tables(text):
        assert {len(cells) for cells in table} == {len(table[0])}
    assert any("".join(t.content for t in one.children or ()) == "a|b <img src=x> `c` dB ↑" for one in parsed(text))


def test_code_keeps_what_is_harmless() -> None:
    assert markdown.format_code("OPEN 花园") == "`OPEN 花园`"
    assert markdown.format_code("a|b") == "`a\\|b`"
    assert markdown.format_code("`") == "`` ` ``"
    assert len(markdown.format_code("x" * 500)) == markdown.MAX_CODE_CHARS + 2
    assert "\n" not in markdown.format_code(HOSTILE + "\nx")


def test_results_without_gates_or_text_are_shown() -> None:
    text = markdown.render(make_results([sample_result(make_prompt("a"), None, (None, None))]))
    assert text.startswith("## 📏")
    assert "### Gates" not in text
    assert "Identical pairs, which have no PSNR: `int4`: 1 of 1." in text
