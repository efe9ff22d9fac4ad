"""Compares results with earlier ones of the same prompts: what each variant's pictures gained or lost since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...common.errors import UserError
from ..stats.bootstrap import bootstrap_mean
from .schema import BaselineComparison, PairResult, Results, RunIdentity, ScoreChange

SampleKey = tuple[str, int]  # prompt id and seed


def require_comparable(path: Path, baseline: Results, current: RunIdentity) -> None:
    """Refuses earlier results that say nothing about these.

    Raises:
        UserError: they have no variant in common with these, or were measured on other prompts, seeds, reference or
            truth, or by another version of a metric, such as another OCR or CLIP.
    """
    other = _list_differences(baseline.identity, current)
    if other:
        raise UserError(
            f"The baseline {path} cannot be compared: {' and '.join(other)} differ; evaluate it again, or leave "
            "--baseline out."
        )
    if not baseline.variants.keys() & current.variants.keys():
        raise UserError(
            f"The baseline {path} has none of the variants {', '.join(current.variants)}, only {', '.join(baseline.variants)}; "
            "name candidates alike: --candidate NAME=DIR."
        )


def compare_runs(path: Path, baseline: Results, current: Results) -> BaselineComparison:
    """The changes of each variant that both have, and the names of those that one lacks."""
    common = [name for name in current.variants if name in baseline.variants]
    found = [
        _compute_change(name, score.name, _index_pairs(baseline, name), _index_pairs(current, name), pairs)
        for name in common
        for scores, pairs in ((current.pair_scores, True), (current.image_scores, False))
        for score in scores
    ]
    return BaselineComparison(
        path=str(path),
        created=baseline.created,
        edgepress=baseline.edgepress,
        changes=tuple(change for change in found if change),
        only_baseline=tuple(name for name in baseline.variants if name not in common),
        only_current=tuple(name for name in current.variants if name not in common),
    )


def _list_differences(baseline: RunIdentity, current: RunIdentity) -> list[str]:
    """What must be equal and is not."""
    sides: dict[str, tuple[object, object]] = {
        "the prompts": (baseline.prompts_sha256, current.prompts_sha256),
        "size, steps, guidance or seeds": (baseline.sampling, current.sampling),
        "the references": (_reference_key(baseline), _reference_key(current)),
        "the true pictures": (
            baseline.ground_truth and baseline.ground_truth.sha256,
            current.ground_truth and current.ground_truth.sha256,
        ),
    }
    shared = sorted(baseline.metrics.keys() & current.metrics.keys())
    sides |= {f"the metrics {name}": (baseline.metrics[name], current.metrics[name]) for name in shared}
    return [name for name, (one, other) in sides.items() if one != other]


def _reference_key(identity: RunIdentity) -> tuple[str, str | None]:
    return identity.reference.folder.sha256, identity.reference.dtype


def _index_pairs(results: Results, variant: str) -> dict[SampleKey, PairResult]:
    return {(row.prompt.id, row.seed): row.variants[variant] for row in results.samples}


def _compute_change(
    variant: str, score: str, before: Mapping[SampleKey, PairResult], after: Mapping[SampleKey, PairResult], pairs: bool
) -> ScoreChange | None:
    """None where no picture has the score both times."""
    then, now = ({asked: _get_value(row, score, pairs) for asked, row in rows.items()} for rows in (before, after))
    both = [
        (asked[0], was, value)
        for asked, value in now.items()
        if value is not None and (was := then.get(asked)) is not None
    ]
    prompts = [prompt for prompt, _, _ in both]
    change = bootstrap_mean([value - was for _, was, value in both], prompts)
    if change is None:
        return None
    means = [float(np.mean(values)) for values in ([was for _, was, _ in both], [value for _, _, value in both])]
    return ScoreChange(variant=variant, score=score, baseline=means[0], current=means[1], change=change)


def _get_value(row: PairResult, score: str, pairs: bool) -> float | None:
    if pairs:
        return row.values.get(score)
    return row.image.values.get(score) if row.image else None
