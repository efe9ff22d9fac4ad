"""The report for the terminal, built from the results alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box, markup
from rich.console import Group
from rich.table import Table

from ...common.errors import escape_controls
from ..generation.candidates import REFERENCE
from ..metrics.base import Score
from ..results.aggregate import find_missing_scores, find_text_remarks, find_truncated_prompts
from ..results.schema import (
    ALL_GROUP,
    ImageScoreSummary,
    PairScoreSummary,
    Results,
    ScoreGroup,
    VariantSummary,
    Verdict,
)
from .costs import build_cost_rows
from .descriptions import (
    MIN_GROUP_SIZE,
    NOISE_FLOOR,
    describe_mcnemar,
    describe_samples,
    list_detectable_drops,
    select_large_groups,
)
from .formatting import (
    format_gate_interval,
    format_gate_value,
    format_interval,
    format_label,
    format_percent,
    format_score,
    index_scores,
    pluralize,
)

MAX_LISTED = 10  # samples that are listed for each kind of problem
VERDICT_STYLES: dict[Verdict, str] = {
    "passed": "green",
    "failed": "bold red",
    "inconclusive": "bold yellow",
    "not measured": "bold red",
}
LEFT_ALIGNED = ("", "worst prompt", "verdict")

Cells = Sequence[str]


def render(results: Results) -> Group:
    """Renders the whole report: tables first, then remarks, the verdict last."""
    tables = [
        _build_fidelity_table(results),
        _build_quality_table(results),
        _build_cost_table(results),
        _build_baseline_table(results),
        _build_gate_table(results),
    ]
    shown = [table for table in tables if table.row_count]
    return Group(_format_heading(results), *shown, *_list_remarks(results), *_format_verdict(results))


def _escape(text: str) -> str:
    """A text whose markup and control characters are shown; its lines stay lines."""
    return markup.escape("\n".join(map(escape_controls, text.split("\n"))))


def _format_heading(results: Results) -> str:
    identity = results.identity
    lines = [
        f"{name}  {system.folder.path}{f', {system.engine}' if system.engine else ''}"
        for name, system in {REFERENCE: identity.reference, **identity.variants}.items()
    ]
    dtype = f", {identity.reference.dtype}" if identity.reference.dtype else ""
    lines.append(
        f"{pluralize(len(results.samples), 'sample')}: {describe_samples(results)}{dtype}; "
        "confidence intervals are bootstrapped over prompts\n"
    )
    return _escape("\n".join(lines))


# ---------------------------------------------------------------- tables


def _build_fidelity_table(results: Results) -> Table:
    """Pair scores: each variant compared with the reference."""
    table = _make_table("Fidelity: variant vs. reference", "", "pairs", "mean", "95% CI", "worst", "worst prompt")
    for score in results.pair_scores:
        rows = [
            (name, _format_pair_score(score, group.pair_scores[score.name], results.identity.sampling.num_seeds))
            for name, group in _list_groups(results)
            if score.name in group.pair_scores
        ]
        _add_section(table, score, rows)
    return table


def _build_quality_table(results: Results) -> Table:
    """Image scores: the reference, each variant, and the drop between them."""
    table = _make_table("Quality: reference and variant", "", "pairs", "ref.", "variant", "drop", "rel.", "95% CI")
    for score in results.image_scores:
        rows = [
            (name, _format_image_score(score, group.image_scores[score.name]))
            for name, group in _list_groups(results)
            if score.name in group.image_scores
        ]
        _add_section(table, score, rows)
    return table


def _build_cost_table(results: Results) -> Table:
    """Size, speed and memory."""
    table = _make_table("Size and cost of an image", "", "MB", "bits/weight", "seconds", "memory, MB")
    for row in build_cost_rows(results):
        table.add_row(*map(_escape, row))
    return table


def _build_baseline_table(results: Results) -> Table:
    """Changes since the baseline."""
    table = _make_table("Change since the baseline", "", "pairs", "baseline", "current", "change", "95% CI")
    scores = index_scores(results)
    for change in results.baseline.changes if results.baseline else ():
        score = scores[change.score]
        table.add_row(
            _escape(f"{change.variant}: {format_label(score)}"),
            str(change.change.count),
            format_score(change.baseline, score),
            format_score(change.current, score),
            format_score(change.change.mean, score, signed=True),
            format_interval(change.change, score),
        )
    return table


def _build_gate_table(results: Results) -> Table:
    table = _make_table("Gates", "", "limit", "measured", "95% CI", "verdict", "")
    for gate in results.gates:
        table.add_row(
            _escape(f"{gate.variant}: {gate.name}" if len(results.variants) > 1 else gate.name),
            format_gate_value(gate.limit, gate, results),
            format_gate_value(gate.value, gate, results),
            format_gate_interval(gate, results),
            f"[{VERDICT_STYLES[gate.verdict]}]{gate.verdict}[/]",
            _escape(gate.reason),
        )
    return table


def _make_table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column, justify="left" if column in LEFT_ALIGNED else "right", overflow="fold")
    return table


def _add_section(table: Table, score: Score, rows: Sequence[tuple[str, Cells]]) -> None:
    """Adds the rows of a score: its label stands in the row without a name, or else in a row above the others."""
    if rows and rows[0][0]:
        table.add_row(_escape(format_label(score)))
    for name, cells in rows:
        table.add_row(_escape(f"  {name}" if name else format_label(score)), *cells)
    table.add_section()


def _list_groups(results: Results) -> Iterator[tuple[str, ScoreGroup]]:
    """Yields the rows of a score: the groups of a single variant, or one row per variant; then the noise floor."""
    if len(results.variants) == 1:
        (summary,) = results.variants.values()
        for group in select_large_groups(summary):
            yield "" if group.name == ALL_GROUP else group.name, group
    else:
        yield from ((name, summary.groups[0]) for name, summary in results.variants.items())
    if results.noise_floor:
        yield NOISE_FLOOR, results.noise_floor.groups[0]


def _format_pair_score(score: Score, summary: PairScoreSummary, num_seeds: int) -> Cells:
    seed = f", seed {summary.worst_seed}" if num_seeds > 1 else ""
    return [
        str(summary.mean.count),
        format_score(summary.mean.mean, score),
        format_interval(summary.mean, score),
        format_score(summary.worst, score),
        _escape(summary.worst_prompt + seed),
    ]


def _format_image_score(score: Score, summary: ImageScoreSummary) -> Cells:
    return [
        str(summary.drop.count),
        format_score(summary.reference.mean, score),
        format_score(summary.variant.mean, score),
        format_score(summary.drop.mean, score),
        format_percent(summary.relative_drop),
        format_interval(summary.drop, score),
    ]


# ---------------------------------------------------------------- remarks


def _list_remarks(results: Results) -> list[str]:
    """Identical pairs, tests, failures, defects, what was not measured, and the cost."""
    lines = []
    for name, summary in results.variants.items():
        lines += _list_variant_remarks(results, name, summary)
    for variant in (None, *results.variants):
        truncated = find_truncated_prompts(results.samples, variant)
        notes = [f"{sample.prompt.id}, seed {sample.seed}: {notice}" for sample, notice in truncated]
        lines += _list_problem(f"truncated for {variant or 'the reference'}", "prompt", notes)
        remarks = find_text_remarks(results.samples, variant)
        notes = [f"{sample.prompt.id}, seed {sample.seed}: {remark}" for sample, remark in remarks]
        lines += _list_problem(f"of {variant or 'the reference'} with a remark on its text", "image", notes)
    missing = [f"{sample.prompt.id}: {reason}" for sample, reason in find_missing_scores(results)]
    lines += _list_problem("with a missing score", "sample", missing)
    lines += _describe_hidden_groups(results)
    defects = [f"{record.defect}: {record.prompt}, seed {record.seed}" for record in results.reference_defects]
    lines += _list_problem("of the reference defective", "image", defects)
    lines += [
        f"[yellow]not measured: {name}[/] ({_escape(reason)})" for name, reason in results.unavailable_metrics.items()
    ]
    return lines + _describe_cost(results)


def _list_variant_remarks(results: Results, name: str, summary: VariantSummary) -> list[str]:
    own_noise = results.identity.variants[name].own_noise
    identical = f"identical pairs: {summary.num_identical} of {summary.num_pairs} (without a PSNR)"
    lines = [f"no fidelity: {own_noise}" if own_noise else identical]
    scores = index_scores(results)
    lines += [
        describe_mcnemar(summary, scores[score])
        for score, test in summary.mcnemar.items()
        if test.only_reference or test.only_variant
    ]
    if drops := list_detectable_drops(results, summary):
        lines.append(f"minimum detectable drop (80% power): {drops}")
    failures = [f"{failed.prompt}, seed {failed.seed}: {failed.failure}" for failed in summary.failures]
    defects = [f"{record.defect}: {record.prompt}, seed {record.seed}" for record in summary.defects]
    return [
        *(_escape(f"{name}: {line}") for line in lines),
        *_list_problem(f"of {name} not compared", "pair", failures),
        *_list_problem(f"of {name} defective", "image", defects),
    ]


def _describe_hidden_groups(results: Results) -> list[str]:
    """Names the number of groups that no table shows."""
    groups = [group for summary in results.variants.values() for group in summary.groups if group.name != ALL_GROUP]
    has_one_variant = len(results.variants) == 1
    hidden = {group.name for group in groups if not (has_one_variant and group.num_pairs >= MIN_GROUP_SIZE)}
    size = f" of fewer than {MIN_GROUP_SIZE} pairs" if has_one_variant else ""
    return [f"{pluralize(len(hidden), 'group')}{size} not shown; see report.html"] if hidden else []


def _describe_cost(results: Results) -> list[str]:
    costs = [
        f"{name} {cost.cpu_seconds:.1f} s ({pluralize(cost.computed, 'result')})"
        for name, cost in results.metric_costs.items()
        if cost.computed
    ]
    num_cached = sum(cost.cached for cost in results.metric_costs.values())
    lines = [f"CPU time: {', '.join(costs)}"] if costs else []
    return lines + ([f"{pluralize(num_cached, 'result')} taken from the cache"] if num_cached else [])


def _list_problem(problem: str, noun: str, samples: Sequence[str]) -> list[str]:
    """Lists the first samples with a problem, under a line with their number."""
    if not samples:
        return []
    num_more = len(samples) - MAX_LISTED
    more = [f"  and {num_more} more (see results.json)"] if num_more > 0 else []
    heading = f"{pluralize(len(samples), noun)} {problem}"
    return [f"[red]{_escape(heading)}[/]", *(f"  {_escape(sample)}" for sample in samples[:MAX_LISTED]), *more]


def _format_verdict(results: Results) -> list[str]:
    if results.verdict is None:
        return []
    note = ""
    if results.verdict == "inconclusive":
        note = " (counts as failed: the recipe is strict)" if results.strict else " (use more prompts or seeds)"
    return [f"verdict: [{VERDICT_STYLES[results.verdict]}]{results.verdict}[/]{note}"]
