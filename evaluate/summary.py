"""What the rows of an evaluation come to: means with intervals, worst pairs, drops; nothing else is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .bootstrap import mean_of
from .defects import Defect
from .registry import Score
from .results import ALL, Group, PairSummary, PictureRow, PictureSummary, Row, Summary


def summarise(rows: Sequence[Row], pair_scores: Sequence[Score], picture_scores: Sequence[Score]) -> Summary:
    """The summary of all rows, and that of each language and category.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("no rows to summarise")
    return Summary(
        pictures=len(rows),
        prompts=len({row.prompt.id for row in rows}),
        identical=sum(row.identical for row in rows),
        reference_defects=_defects([row.reference for row in rows]),
        variant_defects=_defects([row.variant for row in rows]),
        groups=tuple(_group(name, members, pair_scores, picture_scores) for name, members in grouped(rows).items()),
    )


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """All rows, then those of each language and of each value of each category."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        for key, value in {"language": row.prompt.language, **row.prompt.categories}.items():
            groups.setdefault(f"{key}: {value}", []).append(row)
    names = sorted(groups, key=lambda name: (not name.startswith("language: "), name))
    return {ALL: list(rows)} | {name: groups[name] for name in names}


def _group(name: str, rows: Sequence[Row], pair_scores: Sequence[Score], picture_scores: Sequence[Score]) -> Group:
    pairs = {score.name: _pair_summary(score, rows) for score in pair_scores}
    pictures = {score.name: _picture_summary(score, rows) for score in picture_scores}
    return Group(
        name=name,
        pictures=len(rows),
        pairs={name: summary for name, summary in pairs.items() if summary},
        scores={name: summary for name, summary in pictures.items() if summary},
    )


def _pair_summary(score: Score, rows: Sequence[Row]) -> PairSummary | None:
    """None where no pair was measured."""
    measured = [(value, row) for row in rows if (value := row.values[score.name]) is not None]
    mean = mean_of([value for value, _ in measured], [row.prompt.id for _, row in measured])
    if mean is None:
        return None
    sign = _sign(score)
    value, row = min(measured, key=lambda item: sign * item[0])
    return PairSummary(mean=mean, worst=value, worst_prompt=row.prompt.id, worst_seed=row.seed)


def _picture_summary(score: Score, rows: Sequence[Row]) -> PictureSummary | None:
    """None where no picture was measured; rows count where both pictures were."""
    measured = [
        (row.prompt.id, reference, variant)
        for row in rows
        if (reference := row.reference.values[score.name]) is not None
        and (variant := row.variant.values[score.name]) is not None
    ]
    if not measured:
        return None
    clusters, references, variants = zip(*measured, strict=True)
    drops = [_sign(score) * (reference - variant) for _, reference, variant in measured]
    means = [mean_of(values, clusters) for values in (references, variants, drops)]
    return PictureSummary.model_validate(dict(zip(("reference", "variant", "drop"), means, strict=True)))


def _sign(score: Score) -> int:
    return 1 if score.higher_is_better else -1


def _defects(pictures: Sequence[PictureRow]) -> dict[Defect, int]:
    return dict(Counter(picture.defect for picture in pictures if picture.defect))
