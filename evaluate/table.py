"""The terminal's view of an evaluation, computed from its results alone."""

from __future__ import annotations

from rich import box
from rich.console import Group as Stack
from rich.markup import escape
from rich.table import Table

from .bootstrap import Mean
from .registry import Score
from .results import ALL, Group, PairSummary, PictureSummary, Results, Summary

SMALLEST_GROUP = 10  # pictures; the interval of fewer is too narrow to be believed


def render(results: Results) -> Stack:
    """Fidelity, then the scores of reference and variant, then what needs a look."""
    tables = [table for table in (fidelity(results), quality(results)) if table.row_count]
    return Stack(heading(results), *tables, *remarks(results.summary))


def heading(results: Results) -> str:
    identity, summary, sampling = results.identity, results.summary, results.identity.sampling
    return escape(
        f"reference  {identity.reference.path}\n"
        f"variant    {identity.candidate.path}\n"
        f"{summary.pictures} pairs of pictures ({summary.prompts} prompts x {sampling.seeds} seeds), "
        f"{sampling.width}x{sampling.height}, {sampling.steps} steps, {identity.dtype}; "
        "intervals are 95 %, bootstrapped over prompts\n"
    )


def fidelity(results: Results) -> Table:
    """The variant against the reference."""
    table = _table("Fidelity: variant against reference", "", "pairs", "mean", "95 %", "worst", "worst prompt")
    for score in results.pair_scores:
        for group in shown_groups(results.summary):
            if score.name in group.pairs:
                table.add_row(_label(score, group), *_pair_cells(score, group.pairs[score.name]))
        table.add_section()
    return table


def quality(results: Results) -> Table:
    """What each pipeline's pictures score alone, and what the variant has lost."""
    table = _table("Quality: reference and variant", "", "pairs", "reference", "variant", "drop", "95 %")
    for score in results.picture_scores:
        for group in shown_groups(results.summary):
            if score.name in group.scores:
                table.add_row(_label(score, group), *_picture_cells(score, group.scores[score.name]))
        table.add_section()
    return table


def shown_groups(summary: Summary) -> list[Group]:
    """All pictures, and the groups that are large enough to say something; the others stand in results.json."""
    return [group for group in summary.groups if group.name == ALL or group.pictures >= SMALLEST_GROUP]


def remarks(summary: Summary) -> list[str]:
    """Identical pairs, and pictures that show nothing."""
    lines = [f"identical pairs: {summary.identical} of {summary.pictures} (PSNR leaves them out)"]
    hidden = len(summary.groups) - len(shown_groups(summary))
    if hidden:
        lines.append(f"{hidden} groups of fewer than {SMALLEST_GROUP} pictures are left to results.json")
    for name, defects in (("reference", summary.reference_defects), ("variant", summary.variant_defects)):
        lines += [f"[red]{kind} pictures of the {name}: {count}[/red]" for kind, count in sorted(defects.items())]
    return lines


def number(value: float, score: Score) -> str:
    """Per cent with one digit, decibels with two, anything else with four."""
    if score.unit == "%":
        return f"{100 * value:.1f}"
    return f"{value:.2f}" if score.unit == "dB" else f"{value:.4f}"


def interval(mean: Mean, score: Score) -> str:
    return "" if mean.low is None or mean.high is None else f"{number(mean.low, score)} ... {number(mean.high, score)}"


def _pair_cells(score: Score, summary: PairSummary) -> list[str]:
    mean = summary.mean
    where = escape(f"{summary.worst_prompt}, seed {summary.worst_seed}")
    numbers = [number(mean.mean, score), interval(mean, score), number(summary.worst, score)]
    return [str(mean.count), *numbers, where]


def _picture_cells(score: Score, summary: PictureSummary) -> list[str]:
    means = [number(mean.mean, score) for mean in (summary.reference, summary.variant, summary.drop)]
    return [str(summary.drop.count), *means, interval(summary.drop, score)]


def _label(score: Score, group: Group) -> str:
    """The score's name in the row of all pictures, which comes first; the group's name below it."""
    if group.name != ALL:
        return escape(f"  {group.name}")
    arrow = "↑" if score.higher_is_better else "↓"
    return escape(" ".join(part for part in (score.title, score.unit, arrow) if part))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, justify="left" if column in ("", "worst prompt") else "right")
    return table
