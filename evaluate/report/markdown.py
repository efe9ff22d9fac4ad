"""The summary for CI, in GitHub's Markdown: tables alone, and never more than `LIMIT` bytes.

What comes from prompts, OCR and paths stands in code spans, in which nothing is markup, a mention or an address.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..results import Gate, Group, PictureRow, Results, Row, VariantSummary, Verdict, Worst
from ..table import SMALLEST_GROUP
from . import words

LIMIT = 60_000  # bytes; a comment on a pull request may have 65,536 characters, a step's summary 1 MiB
SIGNS: dict[Verdict | None, str] = {
    "passed": "✅",
    "failed": "❌",
    "inconclusive": "⚠️",
    "not measured": "⛔",
    None: "📏",
}
WORST = 3  # pairs that are listed for each score of a variant
LONGEST, SENTENCE = 80, 300  # characters that are shown: of what a prompt or a picture holds, and of our own sentences
FLOOR = "noise floor"
LEFT = {"", "score", "gate", "verdict", "remark", "prompt", "worst prompt", "what", "which", "wanted", "read", "group"}

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
    for section in sections(results):
        if len(section.rows) > 1:
            text += _fitted(section, LIMIT - len(text.encode()))
    return text


def sections(results: Results) -> list[Section]:
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


def code(text: str, longest: int = LONGEST) -> str:
    """A text of any origin as a code span that may stand in a table: one line, of no more than so many characters."""
    plain = "".join(_harmless(character) for character in text)
    if len(plain) > longest:
        plain = plain[: longest - 1] + "…"
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    padded = f" {plain} " if plain.startswith("`") or plain.endswith("`") or not plain.strip() else plain
    return f"{fence}{padded}{fence}".replace("|", "\\|")


def plain(text: str) -> str:
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
    lines = [head, ["---" if name in LEFT else "---:" for name in head], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    if shown < len(section.rows):
        table += f"\n\n{len(section.rows) - shown} more rows stand in report.html."
    note = f"{section.note}\n\n" if section.note else ""
    if section.folded:
        return f"<details><summary>{section.title}</summary>\n\n{note}{table}\n\n</details>\n\n"
    return f"### {section.title}\n\n{note}{table}\n\n"


def _heading(results: Results) -> str:
    named = list(results.identity.variants.items())
    sides = [("reference", results.identity.reference), *((code(name), subject) for name, subject in named[:20])]
    lines = [f"- {name}: {code(side.folder.path)} ({words.subject(side)})" for name, side in sides]
    return (
        f"## {SIGNS[results.verdict]} edgepress: {words.headline(results).lower()}\n\n{words.explanation(results)}\n\n"
        + "\n".join(lines)
        + f"\n- compared: {words.compared(results)}\n\n"
        + f"Intervals are 95 %, bootstrapped over prompts. {words.floor(results)}\n\n"
    )


# ---------------------------------------------------------------- tables


def _gates(results: Results) -> Section:
    head = ["gate", "", "verdict", "found", "95 %", "detectable", "remark"]
    return Section("Gates", "", [head, *(_gate(gate, results) for gate in results.gates)])


def _gate(gate: Gate, results: Results) -> Cells:
    return [
        plain(words.gate_title(gate, results)),
        code(gate.variant),
        f"{SIGNS[gate.verdict]} {gate.verdict}",
        words.gate_amount(gate.value, gate, results),
        words.gate_interval(gate, results),
        words.gate_amount(gate.detectable, gate, results),
        code(gate.reason, SENTENCE) if gate.reason else "",
    ]


def _shown(results: Results) -> Iterator[tuple[str, Group, VariantSummary]]:
    """All pictures of each variant, and of the noise floor."""
    for name, summary in results.variants.items():
        yield code(name), summary.groups[0], summary
    if results.floor:
        yield FLOOR, results.floor.groups[0], results.floor


def _quality(results: Results) -> Section:
    """The columns that readers of this field know: reference, variant, drop."""
    head = ["score", "", "pairs", "reference", "variant", "drop", "95 %", "of the reference", "detectable"]
    rows = [
        [
            plain(words.label(score)),
            name,
            str(found.drop.count),
            words.number(found.reference.mean, score),
            words.number(found.variant.mean, score),
            f"**{words.number(found.drop.mean, score)}**",
            words.interval(found.drop, score),
            words.percentage(found.relative),
            words.maybe(summary.detectable.get(score.name), score),
        ]
        for score in words.in_order(results.picture_scores)
        for name, group, summary in _shown(results)
        if (found := group.scores.get(score.name))
    ]
    return Section("Quality: reference, variant, drop", "", [head, *rows])


def _fidelity(results: Results) -> Section:
    head = ["score", "", "pairs", "mean", "95 %", "worst", "worst prompt", "detectable"]
    rows = [
        [
            plain(words.label(score)),
            name,
            str(found.mean.count),
            f"**{words.number(found.mean.mean, score)}**",
            words.interval(found.mean, score),
            words.number(found.worst, score),
            f"{code(found.worst_prompt)} seed {found.worst_seed}",
            words.maybe(summary.detectable.get(score.name), score),
        ]
        for score in words.in_order(results.pair_scores)
        for name, group, summary in _shown(results)
        if (found := group.pairs.get(score.name))
    ]
    identical = [
        f"{code(name)}: {summary.identical} of {summary.pictures}"
        for name, summary in results.variants.items()
        if summary.identical
    ]
    note = f"Identical pairs, which have no PSNR: {', '.join(identical)}." if identical else ""
    return Section("Fidelity: variant against reference", note, [head, *rows])


def _troubles(results: Results) -> Section:
    rows = [
        [code(trouble.variant) if trouble.variant else "reference", plain(trouble.what), f"{code(prompt)} seed {seed}"]
        for trouble in words.troubles(results)
        for prompt, seed in trouble.where
    ]
    return Section("Failures and defects", "", [["", "what", "prompt"], *rows])


def _unmeasured(results: Results) -> Section:
    rows = [[code(name), code(reason, SENTENCE)] for name, reason in results.unmeasured.items()]
    return Section("Not measured", "", [["", "what"], *rows])


def _exact(results: Results) -> Section:
    scores = words.scores_of(results)
    rows = [
        [
            plain(words.label(scores[score])),
            code(name),
            str(test.only_reference),
            str(test.only_variant),
            f"{test.p:.3g}",
        ]
        for name, summary in results.variants.items()
        for score, test in summary.mcnemar.items()
    ]
    head = ["score", "", "right in the reference alone", "right in the variant alone", "McNemar p, exact"]
    several = any(summary.pictures > summary.prompts for summary in results.variants.values())
    note = "Pictures of one prompt are taken as independent, which makes p too small." if several else ""
    return Section("Who alone is right", note, [head, *rows])


def _worst(results: Results) -> Section:
    """The worst pairs of every score."""
    rows = {(row.prompt.id, row.seed): row for row in results.rows}
    head = ["score", "", "prompt", "value", "wanted", "read"]
    cells = [
        _worst_row(name, worst, rows[worst.prompt, worst.seed], results)
        for name, summary in results.variants.items()
        for score in words.scores_of(results)
        for worst in [worst for worst in summary.worst if worst.score == score][:WORST]
    ]
    return Section("Worst pairs", "Values of pair scores, drops of the others.", [head, *cells], folded=True)


def _worst_row(name: str, worst: Worst, row: Row, results: Results) -> Cells:
    score = words.scores_of(results)[worst.score]
    read = _read(row.variants[name].picture)
    return [
        plain(words.label(score)),
        code(name),
        f"{code(worst.prompt)} seed {worst.seed}",
        words.number(worst.value, score),
        code(" ".join(row.prompt.lines)) if row.prompt.lines else "",
        "" if read is None else code(read or "nothing"),
    ]


def _read(picture: PictureRow | None) -> str | None:
    lines = picture.notes.get("read") if picture else None
    return None if lines is None else " ".join(lines)


def _changes(results: Results) -> Section:
    if results.baseline is None:
        return Section("Since the baseline", "", [[]])
    scores = words.scores_of(results)
    rows = [
        [
            plain(words.label(scores[change.score])),
            code(change.variant),
            str(change.change.count),
            words.number(change.before, scores[change.score]),
            words.number(change.after, scores[change.score]),
            words.number(change.change.mean, scores[change.score], signed=True),
            words.interval(change.change, scores[change.score]),
        ]
        for change in results.baseline.changes
        if change.score in scores
    ]
    head = ["score", "", "pairs", "then", "now", "change", "95 %"]
    return Section(f"Since {code(results.baseline.path)}", f"Made {results.baseline.created}.", [head, *rows])


def _groups(results: Results) -> list[Section]:
    """A table a variant: pair scores' means and picture scores' drops of the groups that are large enough."""
    return [_groups_of(name, summary, results) for name, summary in results.variants.items()]


def _groups_of(name: str, summary: VariantSummary, results: Results) -> Section:
    shown = [group for number, group in enumerate(summary.groups) if number == 0 or group.pictures >= SMALLEST_GROUP]
    pairs = [score for score in words.in_order(results.pair_scores) if score.name in summary.groups[0].pairs]
    pictures = [score for score in words.in_order(results.picture_scores) if score.name in summary.groups[0].scores]
    head = ["group", "pairs", *(plain(words.label(score)) for score in pairs)]
    head += [plain(f"{score.title} drop {score.unit}") for score in pictures]
    rows = [
        [
            code(group.name),
            str(group.pictures),
            *(
                words.with_interval(found.mean if (found := group.pairs.get(score.name)) else None, score)
                for score in pairs
            ),
            *(
                words.with_interval(judged.drop if (judged := group.scores.get(score.name)) else None, score)
                for score in pictures
            ),
        ]
        for group in shown
    ]
    left = len(summary.groups) - len(shown)
    note = f"{left} groups of fewer than {SMALLEST_GROUP} pairs are left to report.html." if left else ""
    return Section(f"Groups of {_plain(name)}", note, [head, *rows], folded=True)


def _plain(name: str) -> str:
    """A name within HTML, where code spans mean nothing."""
    kept = "".join(_harmless(character) for character in name)
    return kept.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _details(results: Results) -> Section:
    rows = [[code(title), code(text, SENTENCE)] for title, text in words.details(results)]
    return Section("What was measured on, and with what", "", [["what", "which"], *rows], folded=True)
