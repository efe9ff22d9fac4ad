"""The table: a row for each way to press, best first, and at its end those that could not be measured."""

from __future__ import annotations

from dataclasses import dataclass

from ...evaluate.results import Results
from ..report import paired, scores_of, shown, table
from .press import Made

HEADER = [
    "pressed by",
    "bits a weight",
    "PSNR dB (95 %)",
    "{best} minus it, dB (95 %)",
    "text accuracy lost, points (95 %)",
    "quantized in, s",
    "peak memory, GB",
]


@dataclass(frozen=True)
class Entry:
    """One way to press, measured; or the reason why not."""

    title: str
    made: Made | None = None
    results: Results | None = None
    error: str = ""


def peers_table(entries: list[Entry], best: Entry) -> str:
    """All entries, by falling PSNR; `best` is the one that the others are paired with."""
    measured = sorted((entry for entry in entries if entry.results), key=_psnr, reverse=True)
    rows = [_row(entry, best) for entry in measured]
    failed = [[entry.title, f"not measured: {entry.error}", *[""] * 5] for entry in entries if not entry.results]
    return table([name.format(best=best.title) for name in HEADER], rows + failed)


def _row(entry: Entry, best: Entry) -> list[str]:
    made, results = entry.made, entry.results
    assert made is not None
    assert results is not None
    assert best.results is not None
    scores = scores_of(results)
    return [
        f"{entry.title} ({made.version})",
        f"{made.bits_per_weight:.3f}",
        shown(scores.pairs["psnr"].mean),
        "" if entry is best else shown(paired(best.results, results)),
        shown(scores.scores["text_accuracy"].drop, 100, 1),
        f"{made.seconds:.0f}",
        f"{made.peak / 1e9:.2f}",
    ]


def _psnr(entry: Entry) -> float:
    assert entry.results is not None
    return scores_of(entry.results).pairs["psnr"].mean.mean
