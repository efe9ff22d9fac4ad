"""Compares a run with the results of an earlier run on the same prompts, paired by prompt and seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from ...common.errors import UserError
from ..stats.bootstrap import bootstrap_mean
from .schema import BaselineComparison, PairResult, Results, RunIdentity, SampleKey, SamplingInfo, ScoreChange

SAMPLING_FIELDS = {  # of `SamplingInfo`, by what messages call them
    "the sizes": ("height", "width"),
    "the steps": ("steps",),
    "the guidance scales": ("guidance",),
    "the negative prompts": ("negative_prompt",),
    "the numbers of seeds": ("num_seeds",),
}


def require_comparable(path: Path, baseline: Results, current: RunIdentity) -> None:
    """Checks that a baseline can be compared with a run.

    Args:
        path: path of the baseline, for the message.
        baseline: results of the earlier run.
        current: identity of the new run.

    Raises:
        UserError: prompts, sampling, reference, ground truth, or the version of a metric (such as its CLIP model)
            differ, or the runs have no variant in common.
    """
    _require_equal(path, list_differences(baseline.identity, current))
    _require_common_variant(path, baseline, current.variants)


def require_same_plan(
    path: Path, baseline: Results, prompts_sha256: str, sampling: SamplingInfo, variants: Collection[str]
) -> None:
    """Checks what is known before any model is read: whether a baseline was made by the plan of a run.

    Args:
        path: path of the baseline, for the message.
        baseline: results of the earlier run.
        prompts_sha256: the new run's prompts.
        sampling: how it generates images.
        variants: names of its candidates.

    Raises:
        UserError: prompts or sampling differ, or the runs have no variant in common.
    """
    _require_equal(path, _list_plan_differences(baseline.identity, prompts_sha256, sampling))
    _require_common_variant(path, baseline, variants)


def _require_equal(path: Path, differences: Sequence[str]) -> None:
    if differences:
        raise UserError(
            f"Cannot compare with the baseline {path}: {' and '.join(differences)} differ. Evaluate the baseline "
            "again, or run without --baseline."
        )


def _require_common_variant(path: Path, baseline: Results, variants: Collection[str]) -> None:
    if not baseline.variants.keys() & set(variants):
        raise UserError(
            f"The baseline {path} has no variant in common with this run: it has {', '.join(baseline.variants)}, this "
            f"run has {', '.join(variants)}. Use the same name for the candidate: --candidate NAME=DIR."
        )


def compare_runs(path: Path, baseline: Results, current: Results) -> BaselineComparison:
    """Computes the change of every score of the variants that both runs have."""
    common = [name for name in current.variants if name in baseline.variants]
    changes = [
        _compute_change(name, score.name, _index_pairs(baseline, name), _index_pairs(current, name), is_pair_score)
        for name in common
        for scores, is_pair_score in ((current.pair_scores, True), (current.image_scores, False))
        for score in scores
    ]
    return BaselineComparison(
        path=str(path),
        created=baseline.created,
        edgepress=baseline.edgepress,
        changes=tuple(change for change in changes if change),
        only_baseline=tuple(name for name in baseline.variants if name not in common),
        only_current=tuple(name for name in current.variants if name not in common),
    )


def list_differences(baseline: RunIdentity, current: RunIdentity) -> list[str]:
    """Returns what must be equal but is not."""
    values: dict[str, tuple[object, object]] = {
        "the references": (_get_reference_key(baseline), _get_reference_key(current)),
        "the ground-truth images": (_get_ground_truth_digest(baseline), _get_ground_truth_digest(current)),
    }
    shared = sorted(baseline.metrics.keys() & current.metrics.keys())
    values |= {f"the versions of metric {name}": (baseline.metrics[name], current.metrics[name]) for name in shared}
    differences = [name for name, (before, after) in values.items() if before != after]
    return _list_plan_differences(baseline, current.prompts_sha256, current.sampling) + differences


def _list_plan_differences(baseline: RunIdentity, prompts_sha256: str, sampling: SamplingInfo) -> list[str]:
    values: dict[str, tuple[object, object]] = {"the prompts": (baseline.prompts_sha256, prompts_sha256)}
    values |= {
        title: ([getattr(baseline.sampling, name) for name in fields], [getattr(sampling, name) for name in fields])
        for title, fields in SAMPLING_FIELDS.items()
    }
    return [name for name, (before, after) in values.items() if before != after]


def _get_reference_key(identity: RunIdentity) -> tuple[str, str | None]:
    return identity.reference.folder.sha256, identity.reference.dtype


def _get_ground_truth_digest(identity: RunIdentity) -> str | None:
    return identity.ground_truth.sha256 if identity.ground_truth else None


def _index_pairs(results: Results, variant: str) -> dict[SampleKey, PairResult]:
    return {(sample.prompt.id, sample.seed): sample.variants[variant] for sample in results.samples}


def _compute_change(
    variant: str,
    score: str,
    baseline: Mapping[SampleKey, PairResult],
    current: Mapping[SampleKey, PairResult],
    is_pair_score: bool,
) -> ScoreChange | None:
    """Returns None if no sample has the score in both runs."""
    baseline_values, current_values = (
        {key: _get_value(pair, score, is_pair_score) for key, pair in pairs.items()} for pairs in (baseline, current)
    )
    paired = [
        (key[0], before, after)
        for key, after in current_values.items()
        if after is not None and (before := baseline_values.get(key)) is not None
    ]
    change = bootstrap_mean([after - before for _, before, after in paired], [prompt for prompt, _, _ in paired])
    if change is None:
        return None
    return ScoreChange(
        variant=variant,
        score=score,
        baseline=float(np.mean([before for _, before, _ in paired])),
        current=float(np.mean([after for _, _, after in paired])),
        change=change,
    )


def _get_value(pair: PairResult, score: str, is_pair_score: bool) -> float | None:
    if is_pair_score:
        return pair.values.get(score)
    return pair.image.values.get(score) if pair.image else None
