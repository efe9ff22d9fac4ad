"""The terminal's view of an evaluation, computed from its results alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group as Stack
from rich.markup import escape
from rich.table import Table

from ..metrics.base import Score
from ..results.aggregate import find_missing_scores, find_truncated_prompts
from ..results.gates import DEFECTS_GATE
from ..results.schema import (
    ALL_GROUP,
    GateResult,
    ImageScoreSummary,
    PairScoreSummary,
    Results,
    ScoreGroup,
    VariantSummary,
    Verdict,
)
from ..stats.bootstrap import MeanCI
from .formatting import INDEPENDENCE_NOTE, MIN_GROUP_SIZE

MAX_LISTED = 10  # failures and defects of a variant that are named
VERDICT_COLORS: dict[Verdict, str] = {
    "passed": "green",
    "failed": "bold red",
    "inconclusive": "bold yellow",
    "not measured": "bold red",
}
NOISE_FLOOR = "noise floor"


def render(results: Results) -> Stack:
    """Fidelity, then the scores of reference and variants, what changed, what needs a look, and the verdict."""
    tables = [fidelity(results), quality(results), changes(results), gates(results)]
    shown = [table for table in tables if table.row_count]
    return Stack(heading(results), *shown, *remarks(results), *conclusion(results))


def heading(results: Results) -> str:
    identity, sampling = results.identity, results.identity.sampling
    subjects = {"reference": identity.reference, **identity.variants}
    lines = [
        f"{name}  {subject.folder.path}{f', {subject.engine}' if subject.engine else ''}"
        for name, subject in subjects.items()
    ]
    count = len({row.prompt.id for row in results.samples})
    whole = results.prompt_subset
    prompts = (
        f"{count} of {_counted(whole.total, 'prompt')} ({whole.limited_by})" if whole else _counted(count, "prompt")
    )
    seeds = _counted(sampling.num_seeds, "seed")
    painted = f", {sampling.width}x{sampling.height}, {sampling.steps} steps" if sampling.width else ""
    dtype = f", {identity.reference.dtype}" if identity.reference.dtype else ""
    lines.append(
        f"{len(results.samples)} pairs of pictures: {prompts} x {seeds}{painted}{dtype}; "
        "intervals are 95 %, bootstrapped over prompts\n"
    )
    return escape("\n".join(lines))


# ---------------------------------------------------------------- tables


def fidelity(results: Results) -> Table:
    """The variants against the reference."""
    table = _table("Fidelity: variant against reference", "", "pairs", "mean", "95 %", "worst", "worst prompt")
    for score in results.pair_scores:
        _section(table, score, _pair_rows(results, score))
    return table


def quality(results: Results) -> Table:
    """What each side's pictures score alone, and what the variants have lost, of the reference's score too."""
    table = _table("Quality: reference and variant", "", "pairs", "ref.", "variant", "drop", "of ref.", "95 %")
    for score in results.image_scores:
        _section(table, score, _picture_rows(results, score))
    return table


def changes(results: Results) -> Table:
    """What changed since the baseline."""
    table = _table("Since the baseline", "", "pairs", "then", "now", "change", "95 %")
    scores = {score.name: score for score in (*results.pair_scores, *results.image_scores)}
    for change in results.baseline.changes if results.baseline else ():
        score = scores[change.score]
        numbers = [number(value, score) for value in (change.baseline, change.current, change.change.mean)]
        label = escape(f"{change.variant}: {_title(score)}")
        table.add_row(label, str(change.change.count), *numbers, interval(change.change, score))
    return table


def gates(results: Results) -> Table:
    table = _table("Gates", "", "limit", "found", "95 %", "verdict", "")
    scores = {score.name: score for score in (*results.pair_scores, *results.image_scores)}
    for gate in results.gates:
        name = f"{gate.variant}: {gate.name}" if len(results.variants) > 1 else gate.name
        verdict = f"[{VERDICT_COLORS[gate.verdict]}]{gate.verdict}[/]"
        table.add_row(escape(name), *_gate_cells(gate, scores.get(gate.score)), verdict, escape(gate.reason))
    return table


def shown_groups(summary: VariantSummary) -> list[ScoreGroup]:
    """All pictures, and the groups that are large enough to say something; the others stand in results.json."""
    return [group for group in summary.groups if group.name == ALL_GROUP or group.num_pairs >= MIN_GROUP_SIZE]


# ---------------------------------------------------------------- words


def remarks(results: Results) -> list[str]:
    """Identical pairs, pictures that are missing or show nothing, what was not measured, and what reading cost."""
    lines = [line for name, summary in results.variants.items() for line in _remarks(name, summary)]
    lines += [line for name, summary in results.variants.items() for line in _power(results, name, summary)]
    for name in (None, *results.variants):
        cut = [
            f"{row.prompt.id}, seed {row.seed}: {said}" for row, said in find_truncated_prompts(results.samples, name)
        ]
        lines += _listed(f"prompts were cut for {name or 'the reference'}", cut)
    lines += _listed(
        "pictures have no number of a score", [f"{row.prompt.id}: {why}" for row, why in find_missing_scores(results)]
    )
    lines += _hidden(results)
    defects = [f"{one.defect}: {one.prompt}, seed {one.seed}" for one in results.reference_defects]
    lines += _listed("pictures of the reference show nothing", defects)
    lines += [
        f"[yellow]not measured: {name}[/] ({escape(reason)})" for name, reason in results.unavailable_metrics.items()
    ]
    made = [
        f"{name} {cost.cpu_seconds:.1f} ({cost.computed} readings)"
        for name, cost in results.metric_costs.items()
        if cost.computed
    ]
    kept = sum(cost.cached for cost in results.metric_costs.values())
    lines += [f"CPU seconds: {', '.join(made)}"] if made else []
    lines += [f"{kept} readings were kept from earlier runs"] if kept else []
    return lines


def conclusion(results: Results) -> list[str]:
    """The verdict, last, where it is seen."""
    if results.verdict is None:
        return []
    found = f"[{VERDICT_COLORS[results.verdict]}]{results.verdict}[/]"
    if results.verdict == "inconclusive":
        found += " (strict: this fails)" if results.strict else " (more prompts or seeds would tell)"
    return [f"verdict: {found}"]


def number(value: float, score: Score) -> str:
    """Per cent with one digit, decibels with two, anything else with four; what rounds to nothing has no sign."""
    if score.unit == "%":
        return f"{100 * value:z.1f}"
    return f"{value:z.2f}" if score.unit == "dB" else f"{value:z.4f}"


def interval(mean: MeanCI, score: Score) -> str:
    return "" if mean.low is None or mean.high is None else f"{number(mean.low, score)} ... {number(mean.high, score)}"


# ---------------------------------------------------------------- rows and cells

Cells = Sequence[str]


def _section(table: Table, score: Score, rows: Iterator[tuple[str, Cells]]) -> None:
    """The score's name in the row of all pictures, which comes first where there is one variant; names below it."""
    for position, (name, cells) in enumerate(rows):
        if position == 0 and name:
            table.add_row(escape(_title(score)))
        table.add_row(escape(f"  {name}") if name else escape(_title(score)), *cells)
    table.add_section()


def _pair_rows(results: Results, score: Score) -> Iterator[tuple[str, Cells]]:
    for name, group in _shown(results):
        if score.name in group.pair_scores:
            yield name, _pair_cells(score, group.pair_scores[score.name], results.identity.sampling.num_seeds)


def _picture_rows(results: Results, score: Score) -> Iterator[tuple[str, Cells]]:
    for name, group in _shown(results):
        if score.name in group.image_scores:
            yield name, _picture_cells(score, group.image_scores[score.name])


def _shown(results: Results) -> Iterator[tuple[str, ScoreGroup]]:
    """The groups of the only variant, the first without a name; or all pictures of each of several variants."""
    if len(results.variants) == 1:
        (summary,) = results.variants.values()
        yield from (("" if group.name == ALL_GROUP else group.name, group) for group in shown_groups(summary))
    else:
        yield from ((name, summary.groups[0]) for name, summary in results.variants.items())
    if results.noise_floor:
        yield NOISE_FLOOR, results.noise_floor.groups[0]


def _pair_cells(score: Score, summary: PairScoreSummary, seeds: int) -> list[str]:
    mean = summary.mean
    where = escape(f"{summary.worst_prompt}, seed {summary.worst_seed}" if seeds > 1 else summary.worst_prompt)
    numbers = [number(mean.mean, score), interval(mean, score), number(summary.worst, score)]
    return [str(mean.count), *numbers, where]


def _picture_cells(score: Score, summary: ImageScoreSummary) -> list[str]:
    means = [number(mean.mean, score) for mean in (summary.reference, summary.variant, summary.drop)]
    relative = "" if summary.relative_drop is None else f"{summary.relative_drop:z.1%}"
    return [str(summary.drop.count), *means, relative, interval(summary.drop, score)]


def _gate_cells(gate: GateResult, score: Score | None) -> list[str]:
    """Limit, value and interval; relative ones in per cent of the reference, defects as they are counted."""

    def shown(value: float | None) -> str:
        if value is None:
            return ""
        if gate.name == DEFECTS_GATE:
            return f"{value:.0f}"
        return f"{value:z.2%}" if gate.relative else number(value, score) if score else f"{value:g}"

    ends = f"{shown(gate.low)} ... {shown(gate.high)}" if gate.low is not None else ""
    return [shown(gate.limit) + (" of ref." if gate.relative else ""), shown(gate.value), ends]


def _remarks(name: str, summary: VariantSummary) -> list[str]:
    lines = [f"{escape(name)}: identical pairs: {summary.num_identical} of {summary.num_pairs} (PSNR leaves them out)"]
    lines += [
        f"{escape(name)}: {score}: right in the reference alone {test.only_reference}, in the variant alone "
        f"{test.only_variant}, McNemar p = {test.p_value:.3g}{INDEPENDENCE_NOTE if summary.num_pairs > summary.num_prompts else ''}"
        for score, test in summary.mcnemar.items()
        if test.only_reference or test.only_variant
    ]
    failures = [f"{one.prompt}, seed {one.seed}: {one.failure}" for one in summary.failures]
    defects = [f"{one.defect}: {one.prompt}, seed {one.seed}" for one in summary.defects]
    lines += _listed(f"pairs of {name} were not compared", failures)
    return lines + _listed(f"pictures of {name} show nothing, or another prompt's picture", defects)


def _hidden(results: Results) -> list[str]:
    """Groups that no table shows."""
    groups = [group for summary in results.variants.values() for group in summary.groups if group.name != ALL_GROUP]
    alone = len(results.variants) == 1
    hidden = {group.name for group in groups if not (alone and group.num_pairs >= MIN_GROUP_SIZE)}
    few = f" of fewer than {MIN_GROUP_SIZE} pictures" if alone else ""
    return [f"{len(hidden)} groups{few} are left to results.json and the report"] if hidden else []


def _power(results: Results, name: str, summary: VariantSummary) -> list[str]:
    """What loss so many prompts would have shown; a smaller one may be there unseen."""
    smallest = {score: summary.minimum_detectable_effect.get(score.name) for score in results.image_scores}
    found = [f"{score.title} {number(value, score)}" for score, value in smallest.items() if value is not None]
    return (
        [f"{escape(name)}: smallest drops that would be seen (80 % power): {escape(', '.join(found))}"] if found else []
    )


def _listed(what: str, found: Sequence[str]) -> list[str]:
    """How many, and the first of them."""
    if not found:
        return []
    more = [f"  and {len(found) - MAX_LISTED} more (results.json)"] if len(found) > MAX_LISTED else []
    return [f"[red]{len(found)} {escape(what)}[/]", *(f"  {escape(one)}" for one in found[:MAX_LISTED]), *more]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _title(score: Score) -> str:
    arrow = "↑" if score.higher_is_better else "↓"
    return " ".join(part for part in (score.title, score.unit, arrow) if part)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(
            column, justify="left" if column in ("", "worst prompt", "verdict") else "right", overflow="fold"
        )
    return table
