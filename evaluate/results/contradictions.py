"""Finds numbers of results.json that contradict each other: all aggregates follow from its samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from ...common.json_difference import TOLERANCE, find_difference, show_value
from ...common.name_list import list_names
from ..metrics.base import Score
from ..stats.bootstrap import MeanCI
from .aggregate import VariantPair, aggregate, find_reference_defects, select_variant
from .gates import DEFECTS_GATE, GateSpec, evaluate_gates, overall_verdict
from .schema import GateResult, Results, VariantSummary

# The ends of intervals depend on how a release of numpy resamples, reasons on the release of edgepress.
UNCHECKED = frozenset({"low", "high", "reason"})
GATE_KINDS: Mapping[str, Literal["drop", "min", "max"]] = {"drop": "drop", "min": "min", "max": "max"}


def find_contradiction(results: Results) -> str:
    """Finds an aggregate, gate or verdict that does not follow from the samples.

    Intervals are not resampled: they must contain their mean.

    Returns:
        A clause that names the first one with both values; empty if there is none.
    """
    if results.identity.variants.keys() != results.variants.keys():
        names = list_names(results.identity.variants) or "none"
        return f"identity.variants are {names}, not {list_names(results.variants)}"
    problem = _find_wrong_interval(results.model_dump(exclude={"samples"}), "")
    if problem:
        return problem
    for name, summary in results.variants.items():
        expected = _aggregate(results, select_variant(results.samples, name))
        difference = _compare(summary, expected, f"variants.{name}")
        if difference:
            return difference
    return _find_other_contradiction(results)


def _find_other_contradiction(results: Results) -> str:
    """Finds one in what does not belong to a single variant."""
    if results.noise_floor:
        pairs = [VariantPair(sample, sample.noise_floor) for sample in results.samples if sample.noise_floor]
        expected = _aggregate(results, pairs)
        difference = _compare(results.noise_floor, expected, "noise_floor")
        if difference:
            return difference
    defects = find_reference_defects(results.samples)
    rows: list[tuple[str, Any, Any]] = [
        ("reference_defects", [defect.model_dump() for defect in results.reference_defects],
         [defect.model_dump() for defect in defects]),
        ("gates", [gate.model_dump() for gate in results.gates],
         [_evaluate_again(gate, results.variants).model_dump() for gate in results.gates]),
        ("verdict", results.verdict, overall_verdict(results.gates, results.variants.values())),
    ]  # fmt: skip
    return next(filter(None, (find_difference(value, expected, key, UNCHECKED) for key, value, expected in rows)), "")


def _find_wrong_interval(value: Any, key: str) -> str:
    """Finds an interval that lacks an end or does not contain its mean."""
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return ""
    if value.keys() >= {"low", "high"}:
        mean, low, high = value.get("mean", value.get("value")), value["low"], value["high"]
        ends = [end for end in (low, high) if end is not None]
        margin = TOLERANCE * max(map(abs, ends), default=0)
        if len(ends) == 1:
            return f"{key} has an interval with one end"
        if ends and (mean is None or not low - margin <= mean <= high + margin):
            interval = f"from {show_value(low)} to {show_value(high)}"
            return f"{key} has the mean {show_value(mean)} outside of its interval {interval}"
    entries = ((entry, f"{key}.{name}".lstrip(".")) for name, entry in value.items())
    return next(filter(None, (_find_wrong_interval(*entry) for entry in entries)), "")


def _compare(summary: VariantSummary, expected: VariantSummary, key: str) -> str:
    """Compares aggregates; older files do not have the number of prompts of a group."""
    has_prompts = all(mean.num_prompts is not None for mean in _list_means(summary))
    skip = UNCHECKED if has_prompts else UNCHECKED | {"num_prompts"}
    return find_difference(summary.model_dump(), expected.model_dump(), key, skip)


def _list_means(summary: VariantSummary) -> list[MeanCI]:
    scores = [score for group in summary.groups for score in group.image_scores.values()]
    means = [score.mean for group in summary.groups for score in group.pair_scores.values()]
    return means + [mean for score in scores for mean in (score.reference, score.variant, score.drop)]


def _aggregate(results: Results, pairs: Iterable[VariantPair]) -> VariantSummary:
    return aggregate(list(pairs), results.pair_scores, results.image_scores, num_resamples=0)


def _evaluate_again(gate: GateResult, variants: Mapping[str, VariantSummary]) -> GateResult:
    """Evaluates a gate with its limit; that it could not be measured is believed."""
    summary = variants.get(gate.variant)
    kind = "defects" if gate.name == DEFECTS_GATE else GATE_KINDS.get(gate.name.rpartition("_")[2])
    if summary is None or kind is None:
        return gate
    reason = gate.reason if gate.verdict == "not measured" else ""
    score = Score(name=gate.score, title=gate.score)
    spec = GateSpec(gate.name, kind, score, gate.limit, gate.relative, reason)
    return evaluate_gates(gate.variant, summary, [spec])[0]
