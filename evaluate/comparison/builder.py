"""Builds a comparison of candidates from the results of one or several evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path

from ...common.errors import UserError
from ..report.formatting import order_scores
from ..results.baseline import list_differences
from ..results.plan_name import name_plan
from ..results.schema import ALL_GROUP, Results, SampleKey, ScoreGroup
from ..stats.bootstrap import MeanCI, bootstrap_mean
from .answers import contains_zero, list_answers
from .devices import list_budgets
from .schema import CandidateComparison, CandidateEntry, ScoreEntry

PSNR = "psnr"
SampleValues = Mapping[SampleKey, float]
"""The PSNR of a candidate's images by prompt id and seed, without identical ones."""


def build_comparison(results: Sequence[Results], paths: Sequence[Path] = ()) -> CandidateComparison:
    """Builds a comparison of all candidates of some results.

    Args:
        results: The results, at least one.
        paths: Where they are, for messages.

    Raises:
        UserError: The results are of different prompts, sampling, references or metrics, or two candidates have the
            same name.
    """
    first = results[0]
    for part, path in zip(results[1:], paths[1:], strict=bool(paths)):
        if differences := list_differences(first.identity, part.identity):
            raise UserError(
                f"{paths[0]} and {path} cannot be compared: {' and '.join(differences)} differ. Evaluate the "
                "candidates together, or with the same settings."
            )
        if shared := first.variants.keys() & part.variants.keys():
            raise UserError(
                f"{paths[0]} and {path} both have a candidate {min(shared)!r}. Evaluate one of them under another "
                "name, as NAME=DIR."
            )
    values = {name: _collect_psnr(part, name) for part in results for name in part.variants}
    entries = [_build_entry(part, name) for part in results for name in part.variants]
    entries.sort(key=lambda entry: (-rank_fidelity(entry), entry.system.weight_bytes or inf, entry.name))
    front = _find_front(entries)
    best = next((entry.name for entry in entries if PSNR in entry.scores), None)
    entries = [
        entry.model_copy(update={"on_front": entry.name in front, "gap": _compute_gap(values, entry.name, best)})
        for entry in entries
    ]
    scores = order_scores((*first.pair_scores, *first.image_scores))
    comparison = CandidateComparison(
        created=max(part.created for part in results),
        edgepress=first.edgepress,
        results=tuple(name_plan(part) for part in results),
        reference=first.identity.reference,
        reference_cost=first.reference_cost,
        sampling=first.identity.sampling,
        num_prompts=len({sample.prompt.id for sample in first.samples}),
        score_list=tuple(score for score in scores if any(score.name in entry.scores for entry in entries)),
        pair_scores=tuple(score.name for score in first.pair_scores),
        candidates=tuple(entries),
        budgets=list_budgets(entries, lambda names: _choose(values, entries, names)),
        answers=(),
    )
    return comparison.model_copy(update={"answers": tuple(list_answers(comparison))})


def rank_fidelity(entry: CandidateEntry) -> float:
    """The PSNR that a candidate is ranked by: infinite if all images are the reference's, -infinite without any."""
    if PSNR in entry.scores:
        return entry.scores[PSNR].mean.mean
    return inf if entry.num_pairs and entry.num_identical == entry.num_pairs else -inf


def _build_entry(results: Results, name: str) -> CandidateEntry:
    summary = results.variants[name]
    overall = next(group for group in summary.groups if group.name == ALL_GROUP)
    return CandidateEntry(
        name=name,
        system=results.identity.variants[name],
        num_pairs=summary.num_pairs,
        num_failures=len(summary.failures),
        num_identical=summary.num_identical,
        scores=_list_scores(overall),
        gap=None,
        cost=results.costs.get(name),
        on_front=False,
    )


def _list_scores(group: ScoreGroup) -> dict[str, ScoreEntry]:
    scores = {name: ScoreEntry(mean=summary.mean) for name, summary in group.pair_scores.items()}
    for name, summary in group.image_scores.items():
        scores[name] = ScoreEntry(mean=summary.variant, drop=summary.drop)
    return scores


def _collect_psnr(results: Results, name: str) -> SampleValues:
    values = {(sample.prompt.id, sample.seed): sample.variants[name].values.get(PSNR) for sample in results.samples}
    return {key: value for key, value in values.items() if value is not None}


def _compute_gap(values: Mapping[str, SampleValues], name: str, best: str | None) -> MeanCI | None:
    """The mean paired difference of PSNR to that of the best candidate; None if it is the best, or has none."""
    if best is None or name == best:
        return None
    shared = [key for key in values[name] if key in values[best]]
    return bootstrap_mean([values[name][key] - values[best][key] for key in shared], [key[0] for key in shared])


def _find_front(entries: Sequence[CandidateEntry]) -> set[str]:
    """The candidates than which none is both smaller and closer to the reference, or equal in one and better in one."""
    sized = [entry for entry in entries if entry.system.weight_bytes is not None and rank_fidelity(entry) > -inf]
    front, best, size = set(), -inf, 0
    ordered = sorted(sized, key=lambda entry: (entry.system.weight_bytes or 0, -rank_fidelity(entry)))
    for entry in ordered:
        is_equal = rank_fidelity(entry) == best and entry.system.weight_bytes == size
        if rank_fidelity(entry) > best or is_equal:
            best, size = rank_fidelity(entry), entry.system.weight_bytes or 0
            front.add(entry.name)
    return front


def _choose(values: Mapping[str, SampleValues], entries: Sequence[CandidateEntry], names: Sequence[str]) -> str | None:
    """Of some candidates, the smallest that cannot be distinguished from the one that is closest to the reference."""
    measured = [entry for entry in entries if entry.name in names and rank_fidelity(entry) > -inf]
    if not measured:
        return None
    closest = max(measured, key=rank_fidelity)
    alike = [entry for entry in measured if entry is closest or _is_alike(values, entry, closest)]
    return min(alike, key=lambda entry: (entry.system.weight_bytes or inf, -rank_fidelity(entry))).name


def _is_alike(values: Mapping[str, SampleValues], entry: CandidateEntry, closest: CandidateEntry) -> bool:
    """Whether the interval of the paired difference of two candidates contains 0."""
    if rank_fidelity(closest) == inf:
        return rank_fidelity(entry) == inf
    gap = _compute_gap(values, entry.name, closest.name)
    return gap is not None and contains_zero(gap)
