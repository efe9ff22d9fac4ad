"""Results in words and figures, the same in the page, in the summary for CI and in the list of cases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ..metrics.base import GROUND_TRUTH_PREFIX, Score
from ..results.aggregate import find_missing_scores, find_truncated_prompts
from ..results.gates import DEFECTS_GATE
from ..results.schema import GateResult, Results, SystemInfo, VariantSummary, Verdict
from ..stats.bootstrap import MeanCI

HEADLINE_SCORES = ("psnr", "clip_i", "text_accuracy")
MINUS_SIGN = "\u2212"
MODEL_SUFFIX = re.compile(r" \[[^\]]*\]")  # in a title
HEADLINES: dict[Verdict | None, str] = {
    "passed": "Passed",
    "failed": "Failed",
    "inconclusive": "Inconclusive",
    "not measured": "Not measured",
    None: "Measured, not judged",
}
SYSTEM_NAMES = {
    "diffusers": "diffusers pipeline",
    "onnx": "ONNX artifact",
    "rknn": "RKNN artifact",
    "images": "folder of pictures",
}


def format_score(value: float, score: Score, signed: bool = False) -> str:
    """Per cent with one digit, decibels with two, anything else with four; the unit stands with the score's title."""
    factor, digits = display_format(score)
    return format_number(factor * value, digits, signed)


def display_format(score: Score) -> tuple[float, int]:
    """What a score is multiplied by to be shown, and the digits that are shown."""
    if score.unit == "%":
        return 100.0, 1
    return 1.0, 2 if score.unit == "dB" else 4


def format_number(value: float, digits: int, signed: bool = False) -> str:
    """A number with a true minus sign; what rounds to nothing has no sign."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return (MINUS_SIGN if value < 0 else "+" if signed else "") + text


def format_interval(mean: MeanCI, score: Score) -> str:
    """The ends of the 95 % interval; nothing where there is none."""
    if mean.low is None or mean.high is None:
        return ""
    return f"[{format_score(mean.low, score)}, {format_score(mean.high, score)}]"


def format_mean(mean: MeanCI | None, score: Score) -> str:
    return f"{format_score(mean.mean, score)} {format_interval(mean, score)}".rstrip() if mean else ""


def format_optional(value: float | None, score: Score) -> str:
    return "" if value is None else format_score(value, score)


def format_percent(fraction: float | None, signed: bool = False) -> str:
    return "" if fraction is None else f"{format_number(100 * fraction, 1, signed)} %"


def format_label(score: Score) -> str:
    """A score with its unit and the direction in which it is better."""
    arrow = "↑" if score.higher_is_better else "↓"
    return " ".join(part for part in (score.title, score.unit, arrow) if part)


def short_title(score: Score) -> str:
    """The title without the model that a score was measured with."""
    return MODEL_SUFFIX.sub("", score.title)


def uses_ground_truth(score: Score) -> bool:
    return score.name.startswith(GROUND_TRUTH_PREFIX)


def describe_comparison(score: Score, pair: bool) -> str:
    """What a score compares a picture with."""
    if pair:
        return "variant against reference"
    return "each picture against the true one" if uses_ground_truth(score) else "each picture by itself"


def scores_by_name(results: Results) -> dict[str, Score]:
    """All scores by name, in the order in which they are shown."""
    return {score.name: score for score in order_scores((*results.pair_scores, *results.image_scores))}


def order_scores(scores: Sequence[Score]) -> list[Score]:
    """Those that a model's readers ask for first, then the others as they come."""
    return sorted(
        scores,
        key=lambda score: HEADLINE_SCORES.index(score.name) if score.name in HEADLINE_SCORES else len(HEADLINE_SCORES),
    )


# ---------------------------------------------------------------- gates


def format_gate(gate: GateResult, results: Results) -> str:
    """What a gate asks for, such as `text accuracy drop ≤ 2.0 points`; by its bare name where its score is unknown."""
    score = scores_by_name(results).get(gate.score)
    if gate.name == DEFECTS_GATE:
        subject = "new pictures that show nothing"
    elif score is None:
        subject = gate.name
    else:
        subject = f"{score.title} drop" if gate.name.endswith("_drop") else score.title
    return f"{subject} {'≥' if is_minimum(gate) else '≤'} {format_gate_value(gate.limit, gate, results)}"


def is_minimum(gate: GateResult) -> bool:
    """Whether the limit is the smallest value that passes; otherwise it is the largest."""
    return gate.name.endswith("_min")


def format_gate_value(value: float | None, gate: GateResult, results: Results) -> str:
    """A gate's limit or value with its unit; points are per cent of pictures, words or characters."""
    if value is None:
        return ""
    if gate.relative:
        return f"{format_number(100 * value, 2)} %"
    score = scores_by_name(results).get(gate.score)
    if score is None:
        return f"{value:g}"
    unit = "points" if score.unit == "%" and gate.name.endswith("_drop") else score.unit
    return f"{format_score(value, score)} {unit}".rstrip()


def format_gate_interval(gate: GateResult, results: Results) -> str:
    if gate.low is None or gate.high is None:
        return ""
    low, high = (format_gate_value(end, gate, results).split(" ")[0] for end in (gate.low, gate.high))
    return f"[{low}, {high}]"


def format_gate_remarks(gate: GateResult, results: Results) -> str:
    """What there is to say of the verdict, and the smallest change that would have been seen."""
    seen = format_gate_value(gate.minimum_detectable_effect, gate, results)
    remarks = [gate.reason, f"detectable: {seen}" if seen else ""]
    return "; ".join(remark for remark in remarks if remark)


# ---------------------------------------------------------------- sentences


def format_headline(results: Results) -> str:
    return HEADLINES[results.verdict]


def explain_verdict(results: Results) -> str:
    """How the gates and the pairs come to the verdict."""
    failures = sum(len(summary.failures) for summary in results.variants.values())
    parts = [f"{pluralize(failures, 'pair')} could not be compared"] if failures else []
    for verdict in ("failed", "not measured", "inconclusive", "passed"):
        gates = sum(gate.verdict == verdict for gate in results.gates)
        if gates:
            parts.append(f"{pluralize(gates, 'gate')} {verdict}")
    if not results.gates:
        parts.append("the recipe sets no gates")
    sentence = ", ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def describe_samples(results: Results) -> str:
    """How much was compared and how it was made."""
    sampling = results.identity.sampling
    count, whole = len({row.prompt.id for row in results.samples}), results.prompt_subset
    prompts = (
        f"{count} of {pluralize(whole.total, 'prompt')} ({whole.limited_by})" if whole else pluralize(count, "prompt")
    )
    parts = [f"{prompts} × {pluralize(sampling.num_seeds, 'seed')}"]
    if sampling.width and sampling.height:
        parts.append(f"{sampling.width} × {sampling.height} pixels")
    if sampling.steps:
        parts.append(pluralize(sampling.steps, "step"))
    return ", ".join(parts)


class Problem(NamedTuple):
    """Pictures that could not be compared, show nothing, or miss some of the prompt: whose (None: the reference's)."""

    variant: str | None
    problem: str
    outcome: Literal["error", "failure"] | None  # not compared; shows nothing, or nothing new, or not the variant's
    samples: tuple[tuple[str, int], ...]  # prompt and seed


def find_problems(results: Results) -> list[Problem]:
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
        for row, _ in find_truncated_prompts(results.samples, name):
            found.setdefault((name, "prompt cut", None), []).append((row.prompt.id, row.seed))
    for one in results.reference_defects:
        found.setdefault((None, one.defect, None), []).append((one.prompt, one.seed))
    for row, _ in find_truncated_prompts(results.samples, None):
        found.setdefault((None, "prompt cut", None), []).append((row.prompt.id, row.seed))
    for row, said in find_missing_scores(results):
        found.setdefault((None, said, None), []).append((row.prompt.id, row.seed))
    return [Problem(*kind, tuple(where)) for kind, where in found.items()]


def describe_system(system: SystemInfo) -> str:
    """What kind of thing was compared, and in which numbers it computed."""
    return ", ".join(part for part in (SYSTEM_NAMES[system.kind], system.engine, system.dtype) if part)


def list_details(results: Results) -> list[tuple[str, str]]:
    """What was measured on, with what, and how long it took."""
    identity = results.identity
    subjects = {"reference": identity.reference, **identity.variants}
    rows = [(name, f"{one.folder.path}, SHA-256 {one.folder.sha256}") for name, one in subjects.items()]
    if identity.ground_truth:
        rows.append(("true pictures", f"{identity.ground_truth.path}, SHA-256 {identity.ground_truth.sha256}"))
    rows.append(("prompts", f"{identity.prompt_set or 'none'}, SHA-256 {identity.prompts_sha256}"))
    rows.append(("recipe", identity.device))
    rows += [(f"metric {name}", _with_cost(results, name)) for name in identity.metrics]
    rows.append(("libraries", ", ".join(f"{name} {version}" for name, version in identity.libraries.items())))
    rows.append(("time", ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in results.stage_seconds.items())))
    return [*rows, ("made", f"{results.created}, edgepress {results.edgepress}")]


def _with_cost(results: Results, metric: str) -> str:
    """A metric's version, and what it cost."""
    version, cost = results.identity.metrics[metric], results.metric_costs.get(metric)
    if cost is None:
        return version
    return f"{version}; {cost.computed} made in {cost.cpu_seconds:.1f} s of CPU time, {cost.cached} kept from earlier"


def describe_noise_floor(results: Results) -> str:
    """The noise floor in one sentence, where it was measured."""
    if results.noise_floor is None:
        return "The noise floor (the reference run again) was not measured."
    same, pairs = results.noise_floor.num_identical, results.noise_floor.num_pairs
    if same == pairs:
        return f"The reference run again painted the same pictures, to the bit ({pluralize(pairs, 'pair')})."
    return f"The reference run again painted other pictures in {pairs - same} of {pluralize(pairs, 'pair')}."


def describe_mcnemar(summary: VariantSummary, score: Score) -> str:
    """Who alone was right, and whether that may be chance; nothing where the score has no such test."""
    found = summary.mcnemar.get(score.name)
    if found is None:
        return ""
    return (
        f"{score.title}: only the reference is right {pluralize(found.only_reference, 'time')}, only the variant "
        f"{pluralize(found.only_variant, 'time')} (McNemar, exact, p = {found.p_value:.3g}"
        f"{INDEPENDENCE_NOTE if summary.num_pairs > summary.num_prompts else ''})"
    )


def pluralize(count: int, noun: str) -> str:
    """A number and its noun, such as `1 pair` and `2 pairs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}".replace(",", "\u202f")


MIN_GROUP_SIZE = 10  # pictures; the interval of fewer is too narrow to be believed


INDEPENDENCE_NOTE = ", pictures of one prompt taken as independent"  # which makes the p of McNemar's test too small
