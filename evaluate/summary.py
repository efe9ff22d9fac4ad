"""What the rows of a variant come to: means with intervals, drops, tests, worst pairs; nothing else is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from ..prompts import Prompt
from .bootstrap import mean_of
from .mcnemar import mcnemar
from .power import detectable
from .registry import Score
from .results import (
    ALL,
    CUT,
    Defective,
    Failed,
    Group,
    PairSummary,
    PictureRow,
    PictureSummary,
    Results,
    Row,
    VariantRow,
    VariantSummary,
    Worst,
)

T = TypeVar("T")
WORST = 10  # pairs that are kept for each score


class Pair(NamedTuple):
    """A row, and what one of the variants made of it."""

    row: Row
    variant: VariantRow


class Measured(NamedTuple):
    """A pair's values of one score: of a pair score its value alone, of a picture score both pictures'."""

    row: Row
    reference: float
    variant: float


def pairs_of(rows: Sequence[Row], variant: str) -> list[Pair]:
    return [Pair(row, row.variants[variant]) for row in rows]


def summarise(pairs: Sequence[Pair], pair_scores: Sequence[Score], picture_scores: Sequence[Score]) -> VariantSummary:
    """The summary of a variant: of all pairs, and of each language and category; failed pairs count in no mean."""
    compared = [pair for pair in pairs if pair.variant.failure is None]
    groups = {ALL: compared} | _by_group([(pair.row.prompt, pair) for pair in compared])
    return VariantSummary(
        pictures=len(compared),
        prompts=len({pair.row.prompt.id for pair in compared}),
        identical=sum(pair.variant.identical for pair in compared),
        failures=tuple(_failures(pairs)),
        defects=tuple(_defects(pairs)),
        groups=tuple(_group(name, members, pair_scores, picture_scores) for name, members in groups.items()),
        mcnemar={score.name: mcnemar(*found) for score in picture_scores if (found := _binary(score, compared))},
        detectable=_detectable(compared, pair_scores, picture_scores),
        worst=tuple(worst for score in pair_scores for worst in _worst_pairs(score, compared))
        + tuple(worst for score in picture_scores for worst in _worst_drops(score, compared)),
    )


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """All rows, then those of each language and of each value of each category."""
    return {ALL: list(rows)} | _by_group([(row.prompt, row) for row in rows])


def reference_defects(rows: Sequence[Row]) -> tuple[Defective, ...]:
    """The reference's pictures that show nothing."""
    return tuple(
        Defective(prompt=row.prompt.id, seed=row.seed, defect=row.reference.defect, new=False)
        for row in rows
        if row.reference and row.reference.defect
    )


def cut_prompts(rows: Sequence[Row], variant: str | None) -> list[tuple[Row, str]]:
    """Rows whose prompt a variant (None: the reference) did not read to its end, each with what was cut."""
    pictures = [(row, row.variants[variant].picture if variant else row.reference) for row in rows]
    return [(row, " ".join(said)) for row, picture in pictures if picture and (said := picture.notes.get(CUT))]


def unscored(results: Results) -> list[tuple[Row, str]]:
    """Rows whose prompt or pictures a metric could not judge, each with the score and the metric's own reason.

    A note under the name of a score that has no value is that reason; of several pictures of a row each is told once.
    """
    titles = {score.name: score.title for score in results.picture_scores}
    found: dict[tuple[int, str], Row] = {}
    for number, row in enumerate(results.rows):
        for picture in (row.reference, *(one.picture for one in row.variants.values())):
            for name, notes in picture.notes.items() if picture else ():
                if name in titles and picture and picture.values.get(name) is None:
                    found[number, f"no {titles[name]}: {' '.join(notes)}"] = row
    return [(row, said) for (_, said), row in found.items()]


# ---------------------------------------------------------------- values


def _compared(score: Score, pairs: Sequence[Pair]) -> list[Measured]:
    """The pairs that a pair score was measured on."""
    return [
        Measured(pair.row, value, value) for pair in pairs if (value := pair.variant.values.get(score.name)) is not None
    ]


def _judged(score: Score, pairs: Sequence[Pair]) -> list[Measured]:
    """The pairs both of whose pictures have a picture score."""
    return [
        Measured(pair.row, reference, variant)
        for pair in pairs
        if (reference := _value(score, pair.row.reference)) is not None
        and (variant := _value(score, pair.variant.picture)) is not None
    ]


def _value(score: Score, picture: PictureRow | None) -> float | None:
    return picture.values.get(score.name) if picture else None


def _sign(score: Score) -> int:
    return 1 if score.higher_is_better else -1


def _drop(score: Score, one: Measured) -> float:
    return _sign(score) * (one.reference - one.variant)


# ---------------------------------------------------------------- means


def _by_group(items: Sequence[tuple[Prompt, T]]) -> dict[str, list[T]]:
    """Languages first, then categories; pictures that nobody asked for with words have no language."""
    groups: dict[str, list[T]] = {}
    for prompt, item in items:
        language = {"language": prompt.language} if prompt.prompt else {}
        for key, value in (language | prompt.categories).items():
            groups.setdefault(f"{key}: {value}", []).append(item)
    return {name: groups[name] for name in sorted(groups, key=lambda name: (not name.startswith("language: "), name))}


def _group(name: str, pairs: Sequence[Pair], pair_scores: Sequence[Score], picture_scores: Sequence[Score]) -> Group:
    compared = {score.name: _pair_summary(score, pairs) for score in pair_scores}
    judged = {score.name: _picture_summary(score, pairs) for score in picture_scores}
    return Group(
        name=name,
        pictures=len(pairs),
        pairs={name: summary for name, summary in compared.items() if summary},
        scores={name: summary for name, summary in judged.items() if summary},
    )


def _pair_summary(score: Score, pairs: Sequence[Pair]) -> PairSummary | None:
    """None where no pair was measured."""
    measured = _compared(score, pairs)
    mean = mean_of([one.variant for one in measured], [one.row.prompt.id for one in measured])
    if mean is None:
        return None
    worst = min(measured, key=lambda one: _sign(score) * one.variant)
    return PairSummary(mean=mean, worst=worst.variant, worst_prompt=worst.row.prompt.id, worst_seed=worst.row.seed)


def _picture_summary(score: Score, pairs: Sequence[Pair]) -> PictureSummary | None:
    """None where no picture was measured."""
    measured = _judged(score, pairs)
    clusters = [one.row.prompt.id for one in measured]
    reference = mean_of([one.reference for one in measured], clusters)
    variant = mean_of([one.variant for one in measured], clusters)
    drop = mean_of([_drop(score, one) for one in measured], clusters)
    if reference is None or variant is None or drop is None:
        return None
    relative = drop.mean / abs(reference.mean) if reference.mean else None
    return PictureSummary(reference=reference, variant=variant, drop=drop, relative=relative)


# ---------------------------------------------------------------- tests and lists


def _binary(score: Score, pairs: Sequence[Pair]) -> tuple[list[float], list[float]] | None:
    """Both pictures' scores where these are 0 or 1 and there are any."""
    measured = _judged(score, pairs) if score.binary else []
    return ([one.reference for one in measured], [one.variant for one in measured]) if measured else None


def _detectable(
    pairs: Sequence[Pair], pair_scores: Sequence[Score], picture_scores: Sequence[Score]
) -> dict[str, float]:
    """By score; left out where it is not known."""
    values = [(score, one.row, one.variant) for score in pair_scores for one in _compared(score, pairs)]
    values += [(score, one.row, _drop(score, one)) for score in picture_scores for one in _judged(score, pairs)]
    found: dict[str, float] = {}
    for score in (*pair_scores, *picture_scores):
        own = [(value, row.prompt.id) for name, row, value in values if name is score]
        numbers, clusters = [value for value, _ in own], [prompt for _, prompt in own]
        if (smallest := detectable(numbers, clusters, share=score.unit == "%")) is not None:
            found[score.name] = smallest
    return found


def _worst_pairs(score: Score, pairs: Sequence[Pair]) -> list[Worst]:
    measured = sorted(_compared(score, pairs), key=lambda one: _sign(score) * one.variant)
    return [_worst(score, one, one.variant) for one in measured[:WORST]]


def _worst_drops(score: Score, pairs: Sequence[Pair]) -> list[Worst]:
    """The largest drops, if there are any."""
    measured = sorted(_judged(score, pairs), key=lambda one: -_drop(score, one))
    return [_worst(score, one, drop) for one in measured[:WORST] if (drop := _drop(score, one)) > 0]


def _worst(score: Score, one: Measured, value: float) -> Worst:
    return Worst(score=score.name, prompt=one.row.prompt.id, seed=one.row.seed, value=value)


def _failures(pairs: Sequence[Pair]) -> list[Failed]:
    return [
        Failed(prompt=pair.row.prompt.id, seed=pair.row.seed, failure=pair.variant.failure)
        for pair in pairs
        if pair.variant.failure is not None
    ]


def _defects(pairs: Sequence[Pair]) -> list[Defective]:
    return [
        Defective(prompt=row.prompt.id, seed=row.seed, defect=picture.defect, new=not _shows_nothing(row.reference))
        for row, variant in pairs
        if (picture := variant.picture) and picture.defect
    ]


def _shows_nothing(picture: PictureRow | None) -> bool:
    return picture is not None and picture.defect is not None
