from __future__ import annotations

import pytest
from rich.console import Console

from edgepress.evaluate.bootstrap import Mean
from edgepress.evaluate.identity import FolderIdentity
from edgepress.evaluate.registry import Score
from edgepress.evaluate.results import Identity, Results, Row, SamplingIdentity
from edgepress.evaluate.summary import summarise
from edgepress.evaluate.table import interval, number, render

from .rows import FLIP, PSNR, TEXT, picture, prompt, row


def shown(*rows: Row) -> str:
    folder = FolderIdentity(path="model [bold]", sha256="0" * 64, files=1, bytes=1)
    identity = Identity(
        reference=folder,
        candidate=folder,
        sampling=SamplingIdentity(height=64, width=96, steps=2, guidance=0.0, seeds=1),
        dtype="float32",
        prompts_sha256="0" * 64,
        metrics={},
        libraries={},
    )
    summary = summarise(rows, [PSNR, FLIP], [TEXT])
    results = Results(identity=identity, pair_scores=(PSNR, FLIP), picture_scores=(TEXT,), summary=summary, rows=rows)
    console = Console(width=80)
    with console.capture() as capture:
        console.print(render(results))
    return capture.get()


def cells(text: str, start: str) -> list[str]:
    """The first line that starts so, split at wide gaps."""
    line = next(line.strip() for line in text.splitlines() if line.strip().startswith(start))
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_every_number_that_matters_is_shown() -> None:
    text = shown(row(prompt("a"), 30.0, (1.0, 0.5)), row(prompt("b", "zh"), 20.0), row(prompt("c"), None))
    assert cells(text, "PSNR dB ↑") == ["PSNR dB ↑", "2", "25.00", "20.00 ... 30.00", "20.00", "b, seed 0"]
    assert cells(text, "text accuracy % ↑")[:5] == ["text accuracy % ↑", "3", "100.0", "83.3", "16.7"]
    assert cells(text, "text accuracy % ↑")[5].startswith("0.0 ... ")
    assert "identical pairs: 1 of 3" in text
    assert "96x64" in text


def test_groups_of_ten_pictures_are_shown_and_smaller_ones_counted() -> None:
    english = [row(prompt(f"e{i}", "en"), 20.0 + i) for i in range(10)]
    chinese = [row(prompt(f"z{i}", "zh"), 20.0 + i) for i in range(9)]
    text = shown(*english, *chinese)
    assert "language: en" in text
    assert "language: zh" not in text
    assert "1 groups of fewer than 10 pictures" in text


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    text = shown(*[row(prompt("[red]x", kind="[b]"), 30.0)] * 10)
    assert "[red]x, seed 0" in text
    assert "kind: [b]" in text
    assert "model [bold]" in text


def test_a_score_that_was_not_measured_is_not_shown() -> None:
    text = shown(row(prompt("a"), 30.0, (None, None)))
    assert "text accuracy" not in text
    assert "PSNR" in text


def test_defects_are_shown() -> None:
    text = shown(row(prompt("a"), 9.0).model_copy(update={"variant": picture(0, "black")}))
    assert "black pictures of the variant: 1" in text


@pytest.mark.parametrize(
    ("value", "score", "expected"), [(0.5, TEXT, "50.0"), (31.256, PSNR, "31.26"), (0.25, FLIP, "0.2500")]
)
def test_number(value: float, score: Score, expected: str) -> None:
    assert number(value, score) == expected


def test_interval() -> None:
    assert interval(Mean(mean=0.5, low=0.25, high=1, count=2), TEXT) == "25.0 ... 100.0"
    assert interval(Mean(mean=0.5, low=None, high=None, count=1), TEXT) == ""
