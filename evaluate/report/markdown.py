"""The Markdown report for CI, in GitHub's dialect: tables only, and never more than `MAX_BYTES`.

Text from prompts, OCR and paths is put in code spans, where nothing is interpreted as markup, a mention or a link.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...common.markdown_table import render_table
from ..generation.candidates import REFERENCE
from ..results.schema import (
    READ,
    REMARKS,
    GateResult,
    ImageResult,
    Results,
    SampleResult,
    ScoreGroup,
    VariantSummary,
    Verdict,
    WorstPair,
)
from .costs import build_cost_rows, describe_costs, list_costs
from .descriptions import (
    INDEPENDENCE_NOTE,
    MIN_GROUP_SIZE,
    NOISE_FLOOR,
    describe_noise_floor,
    describe_samples,
    describe_system,
    explain_verdict,
    find_problems,
    get_headline,
    has_repeated_prompts,
    list_details,
    select_large_groups,
)
from .formatting import (
    format_gate,
    format_gate_interval,
    format_gate_value,
    format_interval,
    format_label,
    format_mean,
    format_percent,
    format_score,
    index_scores,
    order_scores,
    pluralize,
)

MAX_BYTES = 60_000  # a comment on a pull request may have 65,536 characters, a step summary 1 MiB
VERDICT_ICONS: dict[Verdict | None, str] = {
    "passed": "✅",
    "failed": "❌",
    "inconclusive": "⚠️",
    "not measured": "⛔",
    None: "📏",
}
NUM_WORST = 3  # pairs listed for each score of a variant
MAX_VARIANTS = 20  # listed in the heading
MAX_CODE_CHARS, MAX_SENTENCE_CHARS = 80, 300  # of text from prompts and images, and of messages of edgepress
LEFT_ALIGNED = {
    "",
    "detail",
    "expected",
    "gate",
    "group",
    "problem",
    "prompt",
    "read by OCR",
    "reason",
    "score",
    "value",
    "verdict",
    "worst prompt",
}

Cells = Sequence[str]


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
        title: the heading.
        note: a sentence above the table, or empty.
        rows: the rows of the table, the header first.
        folded: whether the section is collapsed at first.
    """

    title: str
    note: str
    rows: Sequence[Cells]
    folded: bool = False


def render(results: Results) -> str:
    """Renders the report. The most important sections come first; the last ones are cut if there is no room."""
    text = _format_heading(results)
    for section in build_sections(results):
        if len(section.rows) > 1:
            text += _fit_section(section, MAX_BYTES - len(text.encode()))
    return text


def build_sections(results: Results) -> list[Section]:
    """Builds all sections, the most important first; those with only a header are not rendered."""
    return [
        _build_gates(results),
        _build_quality(results),
        _build_fidelity(results),
        _build_costs(results),
        _build_problems(results),
        _build_unavailable_metrics(results),
        _build_mcnemar(results),
        _build_worst_pairs(results),
        _build_baseline(results),
        *(_build_groups(name, summary, results) for name, summary in results.variants.items()),
        _build_details(results),
    ]


# ---------------------------------------------------------------- text


def format_code(text: str, max_chars: int = MAX_CODE_CHARS) -> str:
    """Formats any text as a code span for a table cell: one line of at most `max_chars` characters."""
    line = _sanitize(text)
    if len(line) > max_chars:
        line = line[: max_chars - 1] + "…"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    padded = f" {line} " if line.startswith("`") or line.endswith("`") or not line.strip() else line
    return f"{fence}{padded}{fence}".replace("|", "\\|")


def escape_cell(text: str) -> str:
    """Escapes markup and the end of the cell in a text of edgepress or of the author of a metric."""
    return _sanitize(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def _escape_html(text: str) -> str:
    """Escapes a text for an HTML element, in which code spans are not interpreted."""
    return _sanitize(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _sanitize(text: str) -> str:
    """Replaces line breaks by blanks, and control characters, also those of the text direction, by a mark."""
    return "".join(_sanitize_character(character) for character in text)


def _sanitize_character(character: str) -> str:
    if character in "\n\r\t\u2028\u2029":
        return " "
    return "\ufffd" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character


def _fit_section(section: Section, max_bytes: int) -> str:
    """Renders a section with as many rows as fit; empty if not even one fits."""
    num_rows = len(section.rows)
    while len((text := _format_section(section, num_rows)).encode()) > max_bytes:
        if num_rows == 2:
            return ""
        num_rows = max(2, min(num_rows - 1, num_rows * 3 // 4))
    return text


def _format_section(section: Section, num_rows: int) -> str:
    header, *rows = section.rows[:num_rows]
    numbers = [column for column, name in enumerate(header) if name not in LEFT_ALIGNED]
    table = render_table(header, rows, numbers)
    if num_rows < len(section.rows):
        table += f"\n\n{pluralize(len(section.rows) - num_rows, 'more row')} in report.html."
    note = f"{section.note}\n\n" if section.note else ""
    if section.folded:
        return f"<details><summary>{section.title}</summary>\n\n{note}{table}\n\n</details>\n\n"
    return f"### {section.title}\n\n{note}{table}\n\n"


def _format_heading(results: Results) -> str:
    identity = results.identity
    variants = [(format_code(name), system) for name, system in list(identity.variants.items())[:MAX_VARIANTS]]
    lines = [
        f"- {name}: {format_code(system.folder.path)} ({describe_system(system)})"
        for name, system in [(REFERENCE, identity.reference), *variants]
    ]
    icon = VERDICT_ICONS[results.verdict]
    return (
        f"## {icon} edgepress: {get_headline(results).lower()}\n\n{explain_verdict(results)}\n\n"
        + "\n".join(lines)
        + f"\n- compared: {describe_samples(results)}\n\n"
        + f"Confidence intervals (95%) are bootstrapped over prompts. {describe_noise_floor(results)}\n\n"
    )


# ---------------------------------------------------------------- tables


def _build_gates(results: Results) -> Section:
    header = ["gate", "", "verdict", "measured", "95% CI", "min. detectable", "reason"]
    return Section("Gates", "", [header, *(_format_gate_row(gate, results) for gate in results.gates)])


def _format_gate_row(gate: GateResult, results: Results) -> Cells:
    return [
        escape_cell(format_gate(gate, results)),
        format_code(gate.variant),
        f"{VERDICT_ICONS[gate.verdict]} {gate.verdict}",
        format_gate_value(gate.value, gate, results),
        format_gate_interval(gate, results),
        format_gate_value(gate.minimum_detectable_effect, gate, results),
        format_code(gate.reason, MAX_SENTENCE_CHARS) if gate.reason else "",
    ]


def _iter_summaries(results: Results) -> Iterator[tuple[str, ScoreGroup, VariantSummary]]:
    """Yields the aggregates over all pairs of each variant and of the noise floor."""
    for name, summary in results.variants.items():
        yield format_code(name), summary.groups[0], summary
    if results.noise_floor:
        yield NOISE_FLOOR, results.noise_floor.groups[0], results.noise_floor


def _build_costs(results: Results) -> Section:
    header = ["", "MB", "bits/weight", "seconds", "memory, MB"]
    rows = [[format_code(row.name), *map(escape_cell, row[1:])] for row in build_cost_rows(results)]
    return Section("Size and cost of an image", describe_costs(list_costs(results)), [header, *rows])


def _build_quality(results: Results) -> Section:
    header = ["score", "", "pairs", "reference", "variant", "drop", "95% CI", "relative", "min. detectable"]
    rows = [
        [
            escape_cell(format_label(score)),
            name,
            str(scores.drop.count),
            format_score(scores.reference.mean, score),
            format_score(scores.variant.mean, score),
            f"**{format_score(scores.drop.mean, score)}**",
            format_interval(scores.drop, score),
            format_percent(scores.relative_drop),
            format_score(summary.minimum_detectable_effect.get(score.name), score),
        ]
        for score in order_scores(results.image_scores)
        for name, group, summary in _iter_summaries(results)
        if (scores := group.image_scores.get(score.name))
    ]
    return Section("Quality: reference, variant, drop", "", [header, *rows])


def _build_fidelity(results: Results) -> Section:
    header = ["score", "", "pairs", "mean", "95% CI", "worst", "worst prompt", "min. detectable"]
    rows = [
        [
            escape_cell(format_label(score)),
            name,
            str(scores.mean.count),
            f"**{format_score(scores.mean.mean, score)}**",
            format_interval(scores.mean, score),
            format_score(scores.worst, score),
            f"{format_code(scores.worst_prompt)} seed {scores.worst_seed}",
            format_score(summary.minimum_detectable_effect.get(score.name), score),
        ]
        for score in order_scores(results.pair_scores)
        for name, group, summary in _iter_summaries(results)
        if (scores := group.pair_scores.get(score.name))
    ]
    identical = [
        f"{format_code(name)}: {summary.num_identical} of {summary.num_pairs}"
        for name, summary in results.variants.items()
        if summary.num_identical
    ]
    note = f"Identical pairs, for which PSNR is undefined: {', '.join(identical)}." if identical else ""
    return Section("Fidelity: variant vs. reference", note, [header, *rows])


def _build_problems(results: Results) -> Section:
    rows = [
        [
            format_code(problem.variant) if problem.variant else REFERENCE,
            escape_cell(problem.text),
            f"{format_code(prompt)} seed {seed}",
        ]
        for problem in find_problems(results)
        for prompt, seed in problem.samples
    ]
    return Section("Problems", "", [["", "problem", "prompt"], *rows])


def _build_unavailable_metrics(results: Results) -> Section:
    rows = [
        [format_code(name), format_code(reason, MAX_SENTENCE_CHARS)]
        for name, reason in results.unavailable_metrics.items()
    ]
    return Section("Metrics not measured", "", [["", "reason"], *rows])


def _build_mcnemar(results: Results) -> Section:
    scores = index_scores(results)
    rows = [
        [
            escape_cell(format_label(scores[score])),
            format_code(name),
            str(test.only_reference),
            str(test.only_variant),
            f"{test.p_value:.3g}",
        ]
        for name, summary in results.variants.items()
        for score, test in summary.mcnemar.items()
    ]
    header = ["score", "", "only the reference is right", "only the variant is right", "p (exact)"]
    is_repeated = any(has_repeated_prompts(summary) for summary in results.variants.values())
    note = f"{INDEPENDENCE_NOTE[0].upper()}{INDEPENDENCE_NOTE[1:]}." if is_repeated else ""
    return Section("McNemar's test", note, [header, *rows])


def _build_worst_pairs(results: Results) -> Section:
    samples = {(sample.prompt.id, sample.seed): sample for sample in results.samples}
    header = ["score", "", "prompt", "value or drop", "expected", "read by OCR"]
    rows = [
        _format_worst_pair(name, worst, samples[worst.prompt, worst.seed], results)
        for name, summary in results.variants.items()
        for score in index_scores(results)
        for worst in [worst for worst in summary.worst_pairs if worst.score == score][:NUM_WORST]
    ]
    note = "Values of pair scores, drops of image scores."
    return Section("Worst pairs", note, [header, *rows], folded=True)


def _format_worst_pair(name: str, worst: WorstPair, sample: SampleResult, results: Results) -> Cells:
    score = index_scores(results)[worst.score]
    return [
        escape_cell(format_label(score)),
        format_code(name),
        f"{format_code(worst.prompt)} seed {worst.seed}",
        format_score(worst.value, score),
        format_code(" ".join(sample.prompt.lines)) if sample.prompt.lines else "",
        _format_recognized_text(sample.variants[name].image),
    ]


def _format_recognized_text(image: ImageResult | None) -> str:
    """Formats the text that counts as read, and what is wrong with text that does not."""
    if image is None or READ not in image.notes:
        return ""
    remarks = [format_code(remark) for remark in image.notes.get(REMARKS, ())]
    text = format_code(" ".join(image.notes[READ]) or "nothing")
    return f"{text} ({'; '.join(remarks)})" if remarks else text


def _build_baseline(results: Results) -> Section:
    if results.baseline is None:
        return Section("Change since the baseline", "", [[]])
    scores = index_scores(results)
    rows = [
        [
            escape_cell(format_label(scores[change.score])),
            format_code(change.variant),
            str(change.change.count),
            format_score(change.baseline, scores[change.score]),
            format_score(change.current, scores[change.score]),
            format_score(change.change.mean, scores[change.score], signed=True),
            format_interval(change.change, scores[change.score]),
        ]
        for change in results.baseline.changes
        if change.score in scores
    ]
    header = ["score", "", "pairs", "baseline", "current", "change", "95% CI"]
    note = f"Baseline: {format_code(results.baseline.path)}, created {results.baseline.created}."
    return Section("Change since the baseline", note, [header, *rows])


def _build_groups(name: str, summary: VariantSummary, results: Results) -> Section:
    """Builds the table of a variant: means of pair scores and drops of image scores by group."""
    groups = select_large_groups(summary)
    pair_scores = [score for score in order_scores(results.pair_scores) if score.name in groups[0].pair_scores]
    image_scores = [score for score in order_scores(results.image_scores) if score.name in groups[0].image_scores]
    rows = []
    for group in groups:
        pair_summaries = [(score, group.pair_scores.get(score.name)) for score in pair_scores]
        image_summaries = [(score, group.image_scores.get(score.name)) for score in image_scores]
        means = [format_mean(scores.mean if scores else None, score) for score, scores in pair_summaries]
        drops = [format_mean(scores.drop if scores else None, score) for score, scores in image_summaries]
        rows.append([format_code(group.name), str(group.num_pairs), *means, *drops])
    header = ["group", "pairs", *(escape_cell(format_label(score)) for score in pair_scores)]
    header += [escape_cell(f"{score.title} drop {score.unit}".rstrip()) for score in image_scores]
    num_hidden = len(summary.groups) - len(groups)
    hidden = f"{pluralize(num_hidden, 'group')} of fewer than {MIN_GROUP_SIZE} pairs"
    note = f"Not shown: {hidden} (see report.html)." if num_hidden else ""
    return Section(f"Groups of {_escape_html(name)}", note, [header, *rows], folded=True)


def _build_details(results: Results) -> Section:
    rows = [[format_code(name), format_code(text, MAX_SENTENCE_CHARS)] for name, text in list_details(results)]
    return Section("Run details", "", [["detail", "value"], *rows], folded=True)
