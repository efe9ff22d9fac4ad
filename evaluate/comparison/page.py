"""The page of a comparison: a single HTML file that needs no network."""

from __future__ import annotations

from string import ascii_uppercase

from ..metrics.base import Score
from ..report import costs, formatting
from ..report.html import NUM_COLORS, open_templates
from .plot import build_plot
from .schema import CandidateComparison, CandidateEntry, DeviceBudget, ScoreEntry


def render_page(comparison: CandidateComparison) -> str:
    """Renders the page."""
    environment = open_templates()
    names = [entry.name for entry in comparison.candidates]
    environment.globals |= {
        "colors": {name: number % NUM_COLORS for number, name in enumerate(names)},
        "letters": {name: get_letter(number) for number, name in enumerate(names)},
        "format_entry": format_entry,
        "format_fit": format_fit,
        "describe_identical": describe_identical,
        "describe_budget": describe_budget,
    }
    closest = next((entry.name for entry in comparison.candidates if "psnr" in entry.scores), None)
    known = [comparison.reference_cost, *(entry.cost for entry in comparison.candidates)]
    return environment.get_template("compare.html").render(
        comparison=comparison,
        plot=build_plot(comparison.candidates),
        cost_note=costs.describe_costs(known),
        closest=closest,
    )


def get_letter(number: int) -> str:
    """The mark of a candidate: A to Z, then AA, AB and so on."""
    letter = ascii_uppercase[number % len(ascii_uppercase)]
    rest = number // len(ascii_uppercase)
    return letter if not rest else get_letter(rest - 1) + letter


def format_entry(entry: ScoreEntry | None, score: Score) -> tuple[str, str]:
    """The mean of a score and its interval; of a score of single images, the drop and its interval."""
    if entry is None:
        return "", ""
    mean = formatting.format_score(entry.mean.mean, score)
    if entry.drop is None:
        return mean, formatting.format_interval(entry.mean, score)
    drop = formatting.format_score(entry.drop.mean, score)
    return mean, f"drop {drop} {formatting.format_interval(entry.drop, score)}".rstrip()


def describe_identical(entry: CandidateEntry) -> str:
    """How many images equal the reference's; empty if none does."""
    if not entry.num_identical:
        return ""
    return f"{entry.num_identical} of {entry.num_pairs} identical"


def format_fit(is_fitting: bool | None) -> tuple[str, str]:
    """The verdict on a candidate in a device's memory: its kind, as the style sheet knows it, and its text."""
    if is_fitting is None:
        return "not measured", "not measured"
    return ("passed", "fits") if is_fitting else ("failed", "too large")


def describe_budget(budget: DeviceBudget) -> str:
    """How much memory there is for a candidate."""
    free = max(budget.usable_bytes - budget.process_bytes, 0) / 2**30
    return f"{free:.1f} of {budget.memory:g} GiB"
