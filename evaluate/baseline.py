"""Compares results with earlier ones of the same prompts: what each variant's pictures gained or lost since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import UserError
from .bootstrap import mean_of
from .results import Baseline, Change, Identity, Results, VariantRow

Asked = tuple[str, int]  # prompt id and seed


def check(path: Path, then: Results, now: Identity) -> None:
    """Refuses earlier results that say nothing about these.

    Raises:
        UserError: they have no variant in common with these, or were measured on other prompts, seeds, reference or
            truth, or by another version of a metric, such as another OCR or CLIP.
    """
    other = _differences(then.identity, now)
    if other:
        raise UserError(
            f"The baseline {path} cannot be compared: {' and '.join(other)} differ; evaluate it again, or leave "
            "--baseline out."
        )
    if not then.variants.keys() & now.variants.keys():
        raise UserError(
            f"The baseline {path} has none of the variants {', '.join(now.variants)}, only {', '.join(then.variants)}; "
            "name candidates alike: --candidate NAME=DIR."
        )


def compare(path: Path, then: Results, now: Results) -> Baseline:
    """The changes of each variant that both have, and the names of those that one lacks."""
    common = [name for name in now.variants if name in then.variants]
    found = [
        _change(name, score.name, _rows(then, name), _rows(now, name), pairs)
        for name in common
        for scores, pairs in ((now.pair_scores, True), (now.picture_scores, False))
        for score in scores
    ]
    return Baseline(
        path=str(path),
        created=then.created,
        edgepress=then.edgepress,
        changes=tuple(change for change in found if change),
        only_then=tuple(name for name in then.variants if name not in common),
        only_now=tuple(name for name in now.variants if name not in common),
    )


def _differences(then: Identity, now: Identity) -> list[str]:
    """What must be equal and is not."""
    sides: dict[str, tuple[object, object]] = {
        "the prompts": (then.prompts_sha256, now.prompts_sha256),
        "size, steps, guidance or seeds": (then.sampling, now.sampling),
        "the references": (_content(then), _content(now)),
        "the true pictures": (then.truth and then.truth.sha256, now.truth and now.truth.sha256),
    }
    shared = sorted(then.metrics.keys() & now.metrics.keys())
    sides |= {f"the metrics {name}": (then.metrics[name], now.metrics[name]) for name in shared}
    return [name for name, (one, other) in sides.items() if one != other]


def _content(identity: Identity) -> tuple[str, str | None]:
    return identity.reference.folder.sha256, identity.reference.dtype


def _rows(results: Results, variant: str) -> dict[Asked, VariantRow]:
    return {(row.prompt.id, row.seed): row.variants[variant] for row in results.rows}


def _change(
    variant: str, score: str, before: Mapping[Asked, VariantRow], after: Mapping[Asked, VariantRow], pairs: bool
) -> Change | None:
    """None where no picture has the score both times."""
    then, now = ({asked: _value(row, score, pairs) for asked, row in rows.items()} for rows in (before, after))
    both = [
        (asked[0], was, value)
        for asked, value in now.items()
        if value is not None and (was := then.get(asked)) is not None
    ]
    prompts = [prompt for prompt, _, _ in both]
    change = mean_of([value - was for _, was, value in both], prompts)
    if change is None:
        return None
    means = [float(np.mean(values)) for values in ([was for _, was, _ in both], [value for _, _, value in both])]
    return Change(variant=variant, score=score, before=means[0], after=means[1], change=change)


def _value(row: VariantRow, score: str, pairs: bool) -> float | None:
    if pairs:
        return row.values.get(score)
    return row.picture.values.get(score) if row.picture else None
