"""A comparison for the terminal."""

from __future__ import annotations

from rich import box, markup
from rich.console import Group
from rich.table import Table

from ...common.errors import escape_controls
from ..report.costs import format_megabytes, format_seconds
from ..report.formatting import format_label, format_mean
from .schema import CandidateComparison, CandidateEntry

SHOWN = ("psnr", "text_accuracy")  # the other scores are on the page


def render(comparison: CandidateComparison) -> Group:
    """Renders the candidates, the choice for each device, and what follows."""
    return Group(_build_candidates(comparison), _build_devices(comparison), *map(_escape, comparison.answers))


def _build_candidates(comparison: CandidateComparison) -> Table:
    scores = [score for score in comparison.score_list if score.name in SHOWN]
    columns = ("", "MB", "bits/weight", *map(format_label, scores), "seconds", "memory, MB")
    table = _make_table("Candidates, the closest to the reference first", *columns)
    for entry in comparison.candidates:
        means = [entry.scores[score.name].mean if score.name in entry.scores else None for score in scores]
        bits = entry.system.bits_per_weight
        table.add_row(
            _escape(entry.name),
            format_megabytes(entry.system.weight_bytes),
            "" if bits is None else f"{bits:.2f}",
            *(format_mean(mean, score) for mean, score in zip(means, scores, strict=True)),
            *_format_cost(entry),
        )
    return table


def _format_cost(entry: CandidateEntry) -> tuple[str, str]:
    if entry.cost is None:
        return "", ""
    return format_seconds(entry.cost.seconds), format_megabytes(entry.cost.peak_memory)


def _build_devices(comparison: CandidateComparison) -> Table:
    table = _make_table("Devices, by memory alone", "device", "GiB", "choice", "too large")
    for budget in comparison.budgets:
        large = [name for name, is_fitting in budget.fits.items() if is_fitting is False]
        table.add_row(budget.device, f"{budget.memory:g}", _escape(budget.choice or ""), _escape(", ".join(large)))
    return table


def _make_table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, column in enumerate(columns):
        table.add_column(
            _escape(column), justify="right" if number and column not in ("choice", "too large") else "left"
        )
    return table


def _escape(text: str) -> str:
    return markup.escape(escape_controls(text))
