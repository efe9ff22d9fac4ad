"""Describes results in sentences: the verdict, what was compared, and the problems. All reports use these texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from ..generation.candidates import REFERENCE
from ..metrics.base import Score
from ..results.aggregate import find_missing_scores, find_text_remarks, find_truncated_prompts
from ..results.schema import (
    ALL_GROUP,
    Results,
    SampleKey,
    SamplingInfo,
    ScoreGroup,
    SystemInfo,
    SystemKind,
    VariantSummary,
    Verdict,
)
from .formatting import format_label, format_mean, format_score, index_scores, pluralize, uses_ground_truth

MIN_GROUP_SIZE = 10  # pairs; the interval of a smaller group is too narrow to be reliable
INDEPENDENCE_NOTE = "images of one prompt are counted as independent, so p is too small"
NOISE_FLOOR = "noise floor"
HEADLINES: dict[Verdict | None, str] = {
    "passed": "Passed",
    "failed": "Failed",
    "inconclusive": "Inconclusive",
    "not measured": "Not measured",
    None: "Measured, no gates",
}
SYSTEM_NAMES: dict[SystemKind, str] = {
    "diffusers": "diffusers pipeline",
    "optimum": "pipeline of optimum",
    "onnx": "ONNX artifact",
    "rknn": "RKNN artifact",
    "images": "image folder",
    "server": "server",
}


# ---------------------------------------------------------------- verdict


def get_headline(results: Results) -> str:
    """Returns the verdict as a headline."""
    return HEADLINES[results.verdict]


def explain_verdict(results: Results) -> str:
    """Returns a sentence with the number of failed pairs and of gates by verdict."""
    num_failures = sum(len(summary.failures) for summary in results.variants.values())
    parts = [f"{pluralize(num_failures, 'pair')} could not be compared"] if num_failures else []
    for verdict in ("failed", "not measured", "inconclusive", "passed"):
        num_gates = sum(gate.verdict == verdict for gate in results.gates)
        if num_gates:
            parts.append(f"{pluralize(num_gates, 'gate')} {verdict}")
    if not results.gates:
        parts.append("the recipe sets no gates")
    sentence = ", ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def summarize_results(results: Results) -> str:
    """Returns a few lines: the mean of every score of each variant, and the verdict."""
    lines = []
    for name, summary in results.variants.items():
        overall = summary.groups[0]
        lines.append(f"{name}: {pluralize(summary.num_pairs, 'pair')}, {summary.num_identical} identical")
        for score in index_scores(results).values():
            if pair_scores := overall.pair_scores.get(score.name):
                lines.append(f"  {format_label(score)}: {format_mean(pair_scores.mean, score)}")
            if image_scores := overall.image_scores.get(score.name):
                reference, variant = (format_mean(m, score) for m in (image_scores.reference, image_scores.variant))
                lines.append(f"  {format_label(score)}: {reference} → {variant}")
    return "\n".join([*lines, f"verdict: {results.verdict or 'none (no gates)'}"])


# ---------------------------------------------------------------- what was compared


def describe_samples(results: Results) -> str:
    """Describes how many images were compared and how they were generated."""
    sampling, subset = results.identity.sampling, results.prompt_subset
    num_prompts = len({sample.prompt.id for sample in results.samples})
    prompts = (
        f"{num_prompts} of {pluralize(subset.total, 'prompt')} ({subset.limited_by})"
        if subset
        else pluralize(num_prompts, "prompt")
    )
    return describe_sampling(sampling, prompts)


def describe_sampling(sampling: SamplingInfo, prompts: str) -> str:
    """Describes how images were generated.

    Args:
        sampling: How.
        prompts: What of, such as `8 prompts`.
    """
    parts = [f"{prompts} × {pluralize(sampling.num_seeds, 'seed')}"]
    if sampling.width and sampling.height:
        parts.append(f"{sampling.width}×{sampling.height} pixels")
    if sampling.steps:
        parts.append(pluralize(sampling.steps, "step"))
    return ", ".join(parts)


def describe_system(system: SystemInfo) -> str:
    """Describes what kind of system was compared, what ran it, and its compute dtype."""
    formats = " and ".join(f"{component} {kind}" for component, kind in system.formats.items())
    noise = "noise of its own" if system.own_noise else None
    return ", ".join(part for part in (SYSTEM_NAMES[system.kind], formats, system.engine, system.dtype, noise) if part)


def describe_comparison(score: Score, is_pair_score: bool) -> str:
    """Describes what a score compares."""
    if is_pair_score:
        return "variant vs. reference"
    return "each image vs. the ground truth" if uses_ground_truth(score) else "each image on its own"


def describe_noise_floor(results: Results) -> str:
    """Describes in one sentence whether the reference reproduces its own images."""
    if results.noise_floor is None:
        return "The noise floor (a second run of the reference) was not measured."
    num_identical, num_pairs = results.noise_floor.num_identical, results.noise_floor.num_pairs
    if num_identical == num_pairs:
        return f"Noise floor: a second run of the reference gave bit-identical images ({pluralize(num_pairs, 'pair')})."
    num_different = num_pairs - num_identical
    return (
        f"Noise floor: a second run of the reference gave different images in {num_different} of "
        f"{pluralize(num_pairs, 'pair')}."
    )


def list_details(results: Results) -> list[tuple[str, str]]:
    """Lists the inputs, versions and costs of a run, each as a name and a text."""
    identity = results.identity
    systems = {REFERENCE: identity.reference, **identity.variants}
    details = [(name, f"{system.folder.path}, SHA-256 {system.folder.sha256}") for name, system in systems.items()]
    if identity.ground_truth:
        details.append(("ground truth", f"{identity.ground_truth.path}, SHA-256 {identity.ground_truth.sha256}"))
    details.append(("prompts", f"{identity.prompt_set or 'none'}, SHA-256 {identity.prompts_sha256}"))
    details.append(("recipe", identity.device))
    details += [(f"metric {name}", _describe_metric(results, name)) for name in identity.metrics]
    details.append(("libraries", ", ".join(f"{name} {version}" for name, version in identity.libraries.items())))
    details.append(("time", ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in results.stage_seconds.items())))
    return [*details, ("created", f"{results.created}, edgepress {results.edgepress}")]


def _describe_metric(results: Results, metric: str) -> str:
    """Describes the version and the cost of a metric."""
    version, cost = results.identity.metrics[metric], results.metric_costs.get(metric)
    if cost is None:
        return version
    return f"{version}; {cost.computed} computed in {cost.cpu_seconds:.1f} s of CPU time, {cost.cached} from the cache"


# ---------------------------------------------------------------- scores


def select_large_groups(summary: VariantSummary) -> list[ScoreGroup]:
    """Returns the group of all pairs and those with at least `MIN_GROUP_SIZE` pairs."""
    return [group for group in summary.groups if group.name == ALL_GROUP or group.num_pairs >= MIN_GROUP_SIZE]


def has_repeated_prompts(summary: VariantSummary) -> bool:
    """Returns whether a prompt has several pairs, which McNemar's test counts as independent."""
    return summary.num_pairs > summary.num_prompts


def describe_mcnemar(summary: VariantSummary, score: Score) -> str:
    """Describes McNemar's test of a score; empty if the score has none."""
    test = summary.mcnemar.get(score.name)
    if test is None:
        return ""
    note = f"; {INDEPENDENCE_NOTE}" if has_repeated_prompts(summary) else ""
    return (
        f"{score.title}: only the reference is right in {pluralize(test.only_reference, 'pair')}, only the variant in "
        f"{pluralize(test.only_variant, 'pair')} (exact McNemar test, p = {test.p_value:.3g}{note})"
    )


def list_detectable_drops(results: Results, summary: VariantSummary) -> str:
    """Lists the minimum detectable drop of each image score; empty if none is known."""
    effects = {score: summary.minimum_detectable_effect.get(score.name) for score in results.image_scores}
    return ", ".join(f"{score.title} {format_score(e, score)}" for score, e in effects.items() if e is not None)


# ---------------------------------------------------------------- problems


ProblemOutcome = Literal["error", "failure"]
ProblemKind = tuple[str | None, str, ProblemOutcome | None]  # the first three attributes of a problem


class Problem(NamedTuple):
    """A kind of problem and the samples that have it.

    Attributes:
        variant: the variant that has the problem; None: the reference.
        text: the problem, such as `missing` or `black`.
        outcome: `error` if the images could not be compared, `failure` if the image is defective and the reference's is
            not, None for anything else.
        samples: prompt id and seed of each sample.
    """

    variant: str | None
    text: str
    outcome: ProblemOutcome | None
    samples: tuple[SampleKey, ...]


def find_problems(results: Results) -> list[Problem]:
    """Finds failures, defects, truncated prompts and misplaced text, of variants and reference, and missing scores."""
    samples: dict[ProblemKind, list[SampleKey]] = {}
    for kind, key in _iter_problems(results):
        samples.setdefault(kind, []).append(key)
    return [Problem(*kind, tuple(keys)) for kind, keys in samples.items()]


def _iter_problems(results: Results) -> Iterator[tuple[ProblemKind, SampleKey]]:
    for name, summary in results.variants.items():
        failures = {(failed.prompt, failed.seed): failed.failure for failed in summary.failures}
        for key, failure in failures.items():
            yield (name, failure, "error"), key
        for record in summary.defects:
            key = record.prompt, record.seed
            if record.new:
                yield (name, record.defect, "failure"), key
            elif key not in failures:
                yield (name, f"{record.defect}, like the reference", None), key
        for sample, _ in find_truncated_prompts(results.samples, name):
            yield (name, "prompt truncated", None), (sample.prompt.id, sample.seed)
        for sample, remark in find_text_remarks(results.samples, name):
            yield (name, f"text: {remark}", None), (sample.prompt.id, sample.seed)
    for record in results.reference_defects:
        yield (None, record.defect, None), (record.prompt, record.seed)
    for sample, _ in find_truncated_prompts(results.samples, None):
        yield (None, "prompt truncated", None), (sample.prompt.id, sample.seed)
    for sample, remark in find_text_remarks(results.samples, None):
        yield (None, f"text: {remark}", None), (sample.prompt.id, sample.seed)
    for sample, reason in find_missing_scores(results):
        yield (None, reason, None), (sample.prompt.id, sample.seed)
