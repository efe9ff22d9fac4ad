"""The table of peers: one row each, best first, followed by those that could not be measured."""

from __future__ import annotations

from dataclasses import dataclass

from ...common.markdown_table import render_table
from ...evaluate.results.schema import Results
from ..common.report import compare_paired_psnr, format_mean, get_overall_scores
from .quantization import QuantizedRun

HEADER = [
    "quantized by",
    "bits per weight",
    "PSNR dB (95 %)",
    "{best} minus this, dB (95 %)",
    "text accuracy lost, points (95 %)",
    "quantized in, s",
    "peak memory, GB",
]


@dataclass(frozen=True)
class TableEntry:
    """One row of the table.

    Attributes:
        title: Title of the peer.
        run: Its quantization; None if it could not be measured.
        results: Scores of its images; None if it could not be measured.
        error: Why it could not be measured.
    """

    title: str
    run: QuantizedRun | None = None
    results: Results | None = None
    error: str = ""


def render_peers_table(entries: list[TableEntry], best: TableEntry) -> str:
    """Returns the table by decreasing PSNR. Every entry is compared with `best`."""
    measured = sorted((entry for entry in entries if entry.results), key=_psnr, reverse=True)
    rows = [_row(entry, best) for entry in measured]
    failed = [[entry.title, f"not measured: {entry.error}", *[""] * 5] for entry in entries if not entry.results]
    return render_table([name.format(best=best.title) for name in HEADER], rows + failed)


def _row(entry: TableEntry, best: TableEntry) -> list[str]:
    run, results = entry.run, entry.results
    assert run is not None
    assert results is not None
    assert best.results is not None
    scores = get_overall_scores(results)
    return [
        f"{entry.title} ({run.version})",
        f"{run.bits_per_weight:.3f}",
        format_mean(scores.pair_scores["psnr"].mean),
        "" if entry is best else format_mean(compare_paired_psnr(best.results, results)),
        format_mean(scores.image_scores["text_accuracy"].drop, 100, 1),
        f"{run.seconds:.0f}",
        f"{run.peak_memory / 1e9:.2f}",
    ]


def _psnr(entry: TableEntry) -> float:
    assert entry.results is not None
    return get_overall_scores(entry.results).pair_scores["psnr"].mean.mean
