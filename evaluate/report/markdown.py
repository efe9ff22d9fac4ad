"""The summary for CI, in GitHub's Markdown: tables alone, and never more than `LIMIT` bytes.

What comes from prompts, OCR and paths stands in code spans, in which nothing is markup, a mention or an address.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..results.schema import (
    GateResult,
    ImageResult,
    Results,
    SampleResult,
    ScoreGroup,
    VariantSummary,
    Verdict,
    WorstPair,
)
from . import formatting
from .formatting import MIN_GROUP_SIZE

MAX_BYTES = 60_000  # bytes; a comment on a pull request may have 65,536 characters, a step's summary 1 MiB
VERDICT_ICONS: dict[Verdict | None, str] = {
    "passed": "✅",
    "failed": "❌",
    "inconclusive": "⚠️",
    "not measured": "⛔",
    None: "📏",
}
NUM_WORST = 3  # pairs that are listed for each score of a variant
MAX_CODE_CHARS, MAX_SENTENCE_CHARS = (
    80,
    300,
)  # characters that are shown: of what a prompt or a picture holds, and of our own sentences
FLOOR = "noise floor"
LEFT_ALIGNED = {
    "",
    "score",
    "gate",
    "verdict",
    "remark",
    "prompt",
    "worst prompt",
    "what",
    "which",
    "wanted",
    "read",
    "group",
}

Cells = Sequence[str]


@dataclass(frozen=True)
class Section:
    """A heading, a sentence, and a table whose first row is its head; `rows` may be cut short."""

    title: str
    note: str
    rows: Sequence[Cells]
    folded: bool = False


def render(results: Results) -> str:
    """The whole summary; the most important sections come first, and the last ones are cut where there is no room."""
    text = _heading(results)
    for section in build_sections(results):
        if len(section.rows) > 1:
            text += _fitted(section, MAX_BYTES - len(text.encode()))
    return text


def build_sections(results: Results) -> list[Section]:
    """All tables, most important first; those with no rows but their head are not shown."""
    return [
        _gates(results),
        _quality(results),
        _fidelity(results),
        _troubles(results),
        _unmeasured(results),
        _exact(results),
        _worst(results),
        _changes(results),
        *_groups(results),
        _details(results),
    ]


# ---------------------------------------------------------------- text


def format_code(text: str, max_chars: int = MAX_CODE_CHARS) -> str:
    """A text of any origin as a code span that may stand in a table: one line, of no more than so many characters."""
    plain = "".join(_harmless(character) for character in text)
    if len(plain) > max_chars:
        plain = plain[: max_chars - 1] + "…"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    padded = f" {plain} " if plain.startswith("`") or plain.endswith("`") or not plain.strip() else plain
    return f"{fence}{padded}{fence}".replace("|", "\\|")


def escape_text(text: str) -> str:
    """Words of our own or of a metric's author in a cell: markup and the cell's end are escaped, the rest stands."""
    kept = "".join(_harmless(character) for character in text)
    return kept.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def _harmless(character: str) -> str:
    """Line breaks as blanks; other controls, those of the direction of writing included, as a mark in their place."""
    if character in "\n\r\t\u2028\u2029":
        return " "
    return "\ufffd" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character


def _fitted(section: Section, room: int) -> str:
    """The section with as many rows as there is room for; nothing where there is room for none."""
    shown = len(section.rows)
    while len((text := _table(section, shown)).encode()) > room:
        if shown == 2:
            return ""
        shown = max(2, min(shown - 1, shown * 3 // 4))
    return text


def _table(section: Section, shown: int) -> str:
    head, *rows = section.rows[:shown]
    lines = [head, ["---" if name in LEFT_ALIGNED else "---:" for name in head], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if shown < len(section.rows):
        table += f"\n\n{len(section.rows) - shown} more rows stand in report.html."
    note = f"{section.note}\n\n" if section.note else ""
    if section.folded:
        return f"<details><summary>{section.title}</summary>\n\n{note}{table}\n\n</details>\n\n"
    return f"### {section.title}\n\n{note}{table}\n\n"


def _heading(results: Results) -> str:
    named = list(results.identity.variants.items())
    sides = [("reference", results.identity.reference), *((format_code(name), subject) for name, subject in named[:20])]
    lines = [f"- {name}: {format_code(side.folder.path)} ({formatting.describe_system(side)})" for name, side in sides]
    return (
        f"## {VERDICT_ICONS[results.verdict]} edgepress: {formatting.format_headline(results).lower()}\n\n{formatting.explain_verdict(results)}\n\n"
        + "\n".join(lines)
        + f"\n- compared: {formatting.describe_samples(results)}\n\n"
        + f"Intervals are 95 %, bootstrapped over prompts. {formatting.describe_noise_floor(results)}\n\n"
    )


# ---------------------------------------------------------------- tables


def _gates(results: Results) -> Section:
    head = ["gate", "", "verdict", "found", "95 %", "detectable", "remark"]
    return Section("Gates", "", [head, *(_gate(gate, results) for gate in results.gates)])


def _gate(gate: GateResult, results: Results) -> Cells:
    return [
        escape_text(formatting.format_gate(gate, results)),
        format_code(gate.variant),
        f"{VERDICT_ICONS[gate.verdict]} {gate.verdict}",
        formatting.format_gate_value(gate.value, gate, results),
        formatting.format_gate_interval(gate, results),
        formatting.format_gate_value(gate.minimum_detectable_effect, gate, results),
        format_code(gate.reason, MAX_SENTENCE_CHARS) if gate.reason else "",
    ]


def _shown(results: Results) -> Iterator[tuple[str, ScoreGroup, VariantSummary]]:
    """All pictures of each variant, and of the noise floor."""
    for name, summary in results.variants.items():
        yield format_code(name), summary.groups[0], summary
    if results.noise_floor:
        yield FLOOR, results.noise_floor.groups[0], results.noise_floor


def _quality(results: Results) -> Section:
    """The columns that readers of this field know: reference, variant, drop."""
    head = ["score", "", "pairs", "reference", "variant", "drop", "95 %", "of the reference", "detectable"]
    rows = [
        [
            escape_text(formatting.format_label(score)),
            name,
            str(found.drop.count),
            formatting.format_score(found.reference.mean, score),
            formatting.format_score(found.variant.mean, score),
            f"**{formatting.format_score(found.drop.mean, score)}**",
            formatting.format_interval(found.drop, score),
            formatting.format_percent(found.relative_drop),
            formatting.format_optional(summary.minimum_detectable_effect.get(score.name), score),
        ]
        for score in formatting.order_scores(results.image_scores)
        for name, group, summary in _shown(results)
        if (found := group.image_scores.get(score.name))
    ]
    return Section("Quality: reference, variant, drop", "", [head, *rows])


def _fidelity(results: Results) -> Section:
    head = ["score", "", "pairs", "mean", "95 %", "worst", "worst prompt", "detectable"]
    rows = [
        [
            escape_text(formatting.format_label(score)),
            name,
            str(found.mean.count),
            f"**{formatting.format_score(found.mean.mean, score)}**",
            formatting.format_interval(found.mean, score),
            formatting.format_score(found.worst, score),
            f"{format_code(found.worst_prompt)} seed {found.worst_seed}",
            formatting.format_optional(summary.minimum_detectable_effect.get(score.name), score),
        ]
        for score in formatting.order_scores(results.pair_scores)
        for name, group, summary in _shown(results)
        if (found := group.pair_scores.get(score.name))
    ]
    identical = [
        f"{format_code(name)}: {summary.num_identical} of {summary.num_pairs}"
        for name, summary in results.variants.items()
        if summary.num_identical
    ]
    note = f"Identical pairs, which have no PSNR: {', '.join(identical)}." if identical else ""
    return Section("Fidelity: variant against reference", note, [head, *rows])


def _troubles(results: Results) -> Section:
    rows = [
        [
            format_code(trouble.variant) if trouble.variant else "reference",
            escape_text(trouble.problem),
            f"{format_code(prompt)} seed {seed}",
        ]
        for trouble in formatting.find_problems(results)
        for prompt, seed in trouble.samples
    ]
    return Section("Failures and defects", "", [["", "what", "prompt"], *rows])


def _unmeasured(results: Results) -> Section:
    rows = [
        [format_code(name), format_code(reason, MAX_SENTENCE_CHARS)]
        for name, reason in results.unavailable_metrics.items()
    ]
    return Section("Not measured", "", [["", "what"], *rows])


def _exact(results: Results) -> Section:
    scores = formatting.scores_by_name(results)
    rows = [
        [
            escape_text(formatting.format_label(scores[score])),
            format_code(name),
            str(test.only_reference),
            str(test.only_variant),
            f"{test.p_value:.3g}",
        ]
        for name, summary in results.variants.items()
        for score, test in summary.mcnemar.items()
    ]
    head = ["score", "", "right in the reference alone", "right in the variant alone", "McNemar p, exact"]
    several = any(summary.num_pairs > summary.num_prompts for summary in results.variants.values())
    note = "Pictures of one prompt are taken as independent, which makes p too small." if several else ""
    return Section("Who alone is right", note, [head, *rows])


def _worst(results: Results) -> Section:
    """The worst pairs of every score."""
    rows = {(row.prompt.id, row.seed): row for row in results.samples}
    head = ["score", "", "prompt", "value", "wanted", "read"]
    cells = [
        _worst_row(name, worst, rows[worst.prompt, worst.seed], results)
        for name, summary in results.variants.items()
        for score in formatting.scores_by_name(results)
        for worst in [worst for worst in summary.worst_pairs if worst.score == score][:NUM_WORST]
    ]
    return Section("Worst pairs", "Values of pair scores, drops of the others.", [head, *cells], folded=True)


def _worst_row(name: str, worst: WorstPair, row: SampleResult, results: Results) -> Cells:
    score = formatting.scores_by_name(results)[worst.score]
    read = _read(row.variants[name].image)
    return [
        escape_text(formatting.format_label(score)),
        format_code(name),
        f"{format_code(worst.prompt)} seed {worst.seed}",
        formatting.format_score(worst.value, score),
        format_code(" ".join(row.prompt.lines)) if row.prompt.lines else "",
        "" if read is None else format_code(read or "nothing"),
    ]


def _read(picture: ImageResult | None) -> str | None:
    lines = picture.notes.get("read") if picture else None
    return None if lines is None else " ".join(lines)


def _changes(results: Results) -> Section:
    if results.baseline is None:
        return Section("Since the baseline", "", [[]])
    scores = formatting.scores_by_name(results)
    rows = [
        [
            escape_text(formatting.format_label(scores[change.score])),
            format_code(change.variant),
            str(change.change.count),
            formatting.format_score(change.baseline, scores[change.score]),
            formatting.format_score(change.current, scores[change.score]),
            formatting.format_score(change.change.mean, scores[change.score], signed=True),
            formatting.format_interval(change.change, scores[change.score]),
        ]
        for change in results.baseline.changes
        if change.score in scores
    ]
    head = ["score", "", "pairs", "then", "now", "change", "95 %"]
    return Section(f"Since {format_code(results.baseline.path)}", f"Made {results.baseline.created}.", [head, *rows])


def _groups(results: Results) -> list[Section]:
    """A table a variant: pair scores' means and picture scores' drops of the groups that are large enough."""
    return [_groups_of(name, summary, results) for name, summary in results.variants.items()]


def _groups_of(name: str, summary: VariantSummary, results: Results) -> Section:
    shown = [group for number, group in enumerate(summary.groups) if number == 0 or group.num_pairs >= MIN_GROUP_SIZE]
    pairs = [
        score for score in formatting.order_scores(results.pair_scores) if score.name in summary.groups[0].pair_scores
    ]
    pictures = [
        score for score in formatting.order_scores(results.image_scores) if score.name in summary.groups[0].image_scores
    ]
    head = ["group", "pairs", *(escape_text(formatting.format_label(score)) for score in pairs)]
    head += [escape_text(f"{score.title} drop {score.unit}") for score in pictures]
    rows = [
        [
            format_code(group.name),
            str(group.num_pairs),
            *(
                formatting.format_mean(found.mean if (found := group.pair_scores.get(score.name)) else None, score)
                for score in pairs
            ),
            *(
                formatting.format_mean(judged.drop if (judged := group.image_scores.get(score.name)) else None, score)
                for score in pictures
            ),
        ]
        for group in shown
    ]
    left = len(summary.groups) - len(shown)
    note = f"{left} groups of fewer than {MIN_GROUP_SIZE} pairs are left to report.html." if left else ""
    return Section(f"Groups of {_plain(name)}", note, [head, *rows], folded=True)


def _plain(name: str) -> str:
    """A name within HTML, where code spans mean nothing."""
    kept = "".join(_harmless(character) for character in name)
    return kept.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _details(results: Results) -> Section:
    rows = [
        [format_code(title), format_code(text, MAX_SENTENCE_CHARS)] for title, text in formatting.list_details(results)
    ]
    return Section("What was measured on, and with what", "", [["what", "which"], *rows], folded=True)
