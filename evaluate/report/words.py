"""Results in words and figures, the same in the page, in the summary for CI and in the list of cases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ..bootstrap import Mean
from ..gates import DEFECTS
from ..registry import TRUTH, Score
from ..results import Gate, Results, Subject, VariantSummary, Verdict
from ..summary import cut_prompts, unscored
from ..table import TAKEN

FIRST = ("psnr", "clip_i", "text_accuracy")
MINUS = "\u2212"
MODEL = re.compile(r" \[[^\]]*\]")  # in a title
HEADLINES: dict[Verdict | None, str] = {
    "passed": "Passed",
    "failed": "Failed",
    "inconclusive": "Inconclusive",
    "not measured": "Not measured",
    None: "Measured, not judged",
}
SUBJECTS = {
    "diffusers": "diffusers pipeline",
    "onnx": "ONNX artifact",
    "rknn": "RKNN artifact",
    "images": "folder of pictures",
}


def number(value: float, score: Score, signed: bool = False) -> str:
    """Per cent with one digit, decibels with two, anything else with four; the unit stands with the score's title."""
    factor, digits = form(score)
    return figure(factor * value, digits, signed)


def form(score: Score) -> tuple[float, int]:
    """What a score is multiplied by to be shown, and the digits that are shown."""
    if score.unit == "%":
        return 100.0, 1
    return 1.0, 2 if score.unit == "dB" else 4


def figure(value: float, digits: int, signed: bool = False) -> str:
    """A number with a true minus sign; what rounds to nothing has no sign."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return (MINUS if value < 0 else "+" if signed else "") + text


def interval(mean: Mean, score: Score) -> str:
    """The ends of the 95 % interval; nothing where there is none."""
    if mean.low is None or mean.high is None:
        return ""
    return f"[{number(mean.low, score)}, {number(mean.high, score)}]"


def with_interval(mean: Mean | None, score: Score) -> str:
    return f"{number(mean.mean, score)} {interval(mean, score)}".rstrip() if mean else ""


def maybe(value: float | None, score: Score) -> str:
    return "" if value is None else number(value, score)


def percentage(fraction: float | None, signed: bool = False) -> str:
    return "" if fraction is None else f"{figure(100 * fraction, 1, signed)} %"


def label(score: Score) -> str:
    """A score with its unit and the direction in which it is better."""
    arrow = "↑" if score.higher_is_better else "↓"
    return " ".join(part for part in (score.title, score.unit, arrow) if part)


def brief(score: Score) -> str:
    """The title without the model that a score was measured with."""
    return MODEL.sub("", score.title)


def against_truth(score: Score) -> bool:
    return score.name.startswith(TRUTH)


def compared_with(score: Score, pair: bool) -> str:
    """What a score compares a picture with."""
    if pair:
        return "variant against reference"
    return "each picture against the true one" if against_truth(score) else "each picture by itself"


def scores_of(results: Results) -> dict[str, Score]:
    """All scores by name, in the order in which they are shown."""
    return {score.name: score for score in in_order((*results.pair_scores, *results.picture_scores))}


def in_order(scores: Sequence[Score]) -> list[Score]:
    """Those that a model's readers ask for first, then the others as they come."""
    return sorted(scores, key=lambda score: FIRST.index(score.name) if score.name in FIRST else len(FIRST))


# ---------------------------------------------------------------- gates


def gate_title(gate: Gate, results: Results) -> str:
    """What a gate asks for, such as `text accuracy drop ≤ 2.0 points`; by its bare name where its score is unknown."""
    score = scores_of(results).get(gate.score)
    if gate.name == DEFECTS:
        subject = "new pictures that show nothing"
    elif score is None:
        subject = gate.name
    else:
        subject = f"{score.title} drop" if gate.name.endswith("_drop") else score.title
    return f"{subject} {'≥' if at_least(gate) else '≤'} {gate_amount(gate.limit, gate, results)}"


def at_least(gate: Gate) -> bool:
    """Whether the limit is the smallest value that passes; otherwise it is the largest."""
    return gate.name.endswith("_min")


def gate_amount(value: float | None, gate: Gate, results: Results) -> str:
    """A gate's limit or value with its unit; points are per cent of pictures, words or characters."""
    if value is None:
        return ""
    if gate.relative:
        return f"{figure(100 * value, 2)} %"
    score = scores_of(results).get(gate.score)
    if score is None:
        return f"{value:g}"
    unit = "points" if score.unit == "%" and gate.name.endswith("_drop") else score.unit
    return f"{number(value, score)} {unit}".rstrip()


def gate_interval(gate: Gate, results: Results) -> str:
    if gate.low is None or gate.high is None:
        return ""
    low, high = (gate_amount(end, gate, results).split(" ")[0] for end in (gate.low, gate.high))
    return f"[{low}, {high}]"


def gate_remarks(gate: Gate, results: Results) -> str:
    """What there is to say of the verdict, and the smallest change that would have been seen."""
    seen = gate_amount(gate.detectable, gate, results)
    remarks = [gate.reason, f"detectable: {seen}" if seen else ""]
    return "; ".join(remark for remark in remarks if remark)


# ---------------------------------------------------------------- sentences


def headline(results: Results) -> str:
    return HEADLINES[results.verdict]


def explanation(results: Results) -> str:
    """How the gates and the pairs come to the verdict."""
    failures = sum(len(summary.failures) for summary in results.variants.values())
    parts = [f"{counted(failures, 'pair')} could not be compared"] if failures else []
    for verdict in ("failed", "not measured", "inconclusive", "passed"):
        gates = sum(gate.verdict == verdict for gate in results.gates)
        if gates:
            parts.append(f"{counted(gates, 'gate')} {verdict}")
    if not results.gates:
        parts.append("the recipe sets no gates")
    sentence = ", ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def compared(results: Results) -> str:
    """How much was compared and how it was made."""
    sampling = results.identity.sampling
    count, whole = len({row.prompt.id for row in results.rows}), results.limited
    prompts = f"{count} of {counted(whole.prompts, 'prompt')} ({whole.by})" if whole else counted(count, "prompt")
    parts = [f"{prompts} × {counted(sampling.seeds, 'seed')}"]
    if sampling.width and sampling.height:
        parts.append(f"{sampling.width} × {sampling.height} pixels")
    if sampling.steps:
        parts.append(counted(sampling.steps, "step"))
    return ", ".join(parts)


class Trouble(NamedTuple):
    """Pictures that could not be compared, show nothing, or miss some of the prompt: whose (None: the reference's)."""

    variant: str | None
    what: str
    outcome: Literal["error", "failure"] | None  # not compared; shows nothing, or nothing new, or not the variant's
    where: tuple[tuple[str, int], ...]  # prompt and seed


def troubles(results: Results) -> list[Trouble]:
    """Failures, defects and cut prompts of each variant, then the reference's own, and prompts without some score."""
    found: dict[tuple[str | None, str, Literal["error", "failure"] | None], list[tuple[str, int]]] = {}
    for name, summary in results.variants.items():
        for failed in summary.failures:
            found.setdefault((name, failed.failure, "error"), []).append((failed.prompt, failed.seed))
        failed_pairs = {(failed.prompt, failed.seed) for failed in summary.failures}
        for one in summary.defects:
            if not one.new and (one.prompt, one.seed) in failed_pairs:
                continue  # the failure is told already
            kind = (one.defect, "failure") if one.new else (f"{one.defect}, as the reference's", None)
            found.setdefault((name, *kind), []).append((one.prompt, one.seed))
        for row, _ in cut_prompts(results.rows, name):
            found.setdefault((name, "prompt cut", None), []).append((row.prompt.id, row.seed))
    for one in results.reference_defects:
        found.setdefault((None, one.defect, None), []).append((one.prompt, one.seed))
    for row, _ in cut_prompts(results.rows, None):
        found.setdefault((None, "prompt cut", None), []).append((row.prompt.id, row.seed))
    for row, said in unscored(results):
        found.setdefault((None, said, None), []).append((row.prompt.id, row.seed))
    return [Trouble(*kind, tuple(where)) for kind, where in found.items()]


def subject(compared: Subject) -> str:
    """What kind of thing was compared, and in which numbers it computed."""
    return ", ".join(part for part in (SUBJECTS[compared.kind], compared.engine, compared.dtype) if part)


def details(results: Results) -> list[tuple[str, str]]:
    """What was measured on, with what, and how long it took."""
    identity = results.identity
    subjects = {"reference": identity.reference, **identity.variants}
    rows = [(name, f"{one.folder.path}, SHA-256 {one.folder.sha256}") for name, one in subjects.items()]
    if identity.truth:
        rows.append(("true pictures", f"{identity.truth.path}, SHA-256 {identity.truth.sha256}"))
    rows.append(("prompts", f"{identity.prompts or 'none'}, SHA-256 {identity.prompts_sha256}"))
    rows.append(("recipe", identity.device))
    rows += [(f"metric {name}", _with_cost(results, name)) for name in identity.metrics]
    rows.append(("libraries", ", ".join(f"{name} {version}" for name, version in identity.libraries.items())))
    rows.append(("time", ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in results.seconds.items())))
    return [*rows, ("made", f"{results.created}, edgepress {results.edgepress}")]


def _with_cost(results: Results, metric: str) -> str:
    """A metric's version, and what it cost."""
    version, cost = results.identity.metrics[metric], results.costs.get(metric)
    if cost is None:
        return version
    return f"{version}; {cost.made} made in {cost.seconds:.1f} s of CPU time, {cost.kept} kept from earlier"


def floor(results: Results) -> str:
    """The noise floor in one sentence, where it was measured."""
    if results.floor is None:
        return "The noise floor (the reference run again) was not measured."
    same, pairs = results.floor.identical, results.floor.pictures
    if same == pairs:
        return f"The reference run again painted the same pictures, to the bit ({counted(pairs, 'pair')})."
    return f"The reference run again painted other pictures in {pairs - same} of {counted(pairs, 'pair')}."


def mcnemar(summary: VariantSummary, score: Score) -> str:
    """Who alone was right, and whether that may be chance; nothing where the score has no such test."""
    found = summary.mcnemar.get(score.name)
    if found is None:
        return ""
    return (
        f"{score.title}: only the reference is right {counted(found.only_reference, 'time')}, only the variant "
        f"{counted(found.only_variant, 'time')} (McNemar, exact, p = {found.p:.3g}"
        f"{TAKEN if summary.pictures > summary.prompts else ''})"
    )


def counted(count: int, noun: str) -> str:
    """A number and its noun, such as `1 pair` and `2 pairs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", "\u202f")
