"""What the rows of a variant come to: means with intervals, drops, tests, worst pairs; nothing else is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from ...prompts.prompt import Prompt
from ..metrics.base import Score
from ..stats.bootstrap import bootstrap_mean
from ..stats.mcnemar import mcnemar_test
from ..stats.power import minimum_detectable_effect
from .schema import (
    ALL_GROUP,
    TRUNCATED,
    DefectRecord,
    FailedPair,
    ImageResult,
    ImageScoreSummary,
    PairResult,
    PairScoreSummary,
    Results,
    SampleResult,
    ScoreGroup,
    VariantSummary,
    WorstPair,
)

T = TypeVar("T")
NUM_WORST_PAIRS = 10  # pairs that are kept for each score


class VariantPair(NamedTuple):
    """A row, and what one of the variants made of it."""

    sample: SampleResult
    result: PairResult


class ScoredPair(NamedTuple):
    """A pair's values of one score: of a pair score its value alone, of a picture score both pictures'."""

    sample: SampleResult
    reference: float
    variant: float


def select_variant(rows: Sequence[SampleResult], variant: str) -> list[VariantPair]:
    return [VariantPair(row, row.variants[variant]) for row in rows]


def aggregate(
    pairs: Sequence[VariantPair], pair_scores: Sequence[Score], picture_scores: Sequence[Score]
) -> VariantSummary:
    """The summary of a variant: of all pairs, and of each language and category; failed pairs count in no mean."""
    compared = [pair for pair in pairs if pair.result.failure is None]
    groups = {ALL_GROUP: compared} | _group_by_category([(pair.sample.prompt, pair) for pair in compared])
    return VariantSummary(
        num_pairs=len(compared),
        num_prompts=len({pair.sample.prompt.id for pair in compared}),
        num_identical=sum(pair.result.identical for pair in compared),
        failures=tuple(_list_failures(pairs)),
        defects=tuple(_list_defects(pairs)),
        groups=tuple(_summarize_group(name, members, pair_scores, picture_scores) for name, members in groups.items()),
        mcnemar={
            score.name: mcnemar_test(*found) for score in picture_scores if (found := _binary_values(score, compared))
        },
        minimum_detectable_effect=_detectable_effects(compared, pair_scores, picture_scores),
        worst_pairs=tuple(worst for score in pair_scores for worst in _find_worst_pairs(score, compared))
        + tuple(worst for score in picture_scores for worst in _find_largest_drops(score, compared)),
    )


def group_samples(rows: Sequence[SampleResult]) -> dict[str, list[SampleResult]]:
    """All rows, then those of each language and of each value of each category."""
    return {ALL_GROUP: list(rows)} | _group_by_category([(row.prompt, row) for row in rows])


def find_reference_defects(rows: Sequence[SampleResult]) -> tuple[DefectRecord, ...]:
    """The reference's pictures that show nothing."""
    return tuple(
        DefectRecord(prompt=row.prompt.id, seed=row.seed, defect=row.reference.defect, new=False)
        for row in rows
        if row.reference and row.reference.defect
    )


def find_truncated_prompts(rows: Sequence[SampleResult], variant: str | None) -> list[tuple[SampleResult, str]]:
    """Rows whose prompt a variant (None: the reference) did not read to its end, each with what was cut."""
    pictures = [(row, row.variants[variant].image if variant else row.reference) for row in rows]
    return [(row, " ".join(said)) for row, picture in pictures if picture and (said := picture.notes.get(TRUNCATED))]


def find_missing_scores(results: Results) -> list[tuple[SampleResult, str]]:
    """Rows whose prompt or pictures a metric could not judge, each with the score and the metric's own reason.

    A note under the name of a score that has no value is that reason; of several pictures of a row each is told once.
    """
    titles = {score.name: score.title for score in results.image_scores}
    found: dict[tuple[int, str], SampleResult] = {}
    for number, row in enumerate(results.samples):
        for picture in (row.reference, *(one.image for one in row.variants.values())):
            for name, notes in picture.notes.items() if picture else ():
                if name in titles and picture and picture.values.get(name) is None:
                    found[number, f"no {titles[name]}: {' '.join(notes)}"] = row
    return [(row, said) for (_, said), row in found.items()]


# ---------------------------------------------------------------- values


def _pair_score_values(score: Score, pairs: Sequence[VariantPair]) -> list[ScoredPair]:
    """The pairs that a pair score was measured on."""
    return [
        ScoredPair(pair.sample, value, value)
        for pair in pairs
        if (value := pair.result.values.get(score.name)) is not None
    ]


def _image_score_values(score: Score, pairs: Sequence[VariantPair]) -> list[ScoredPair]:
    """The pairs both of whose pictures have a picture score."""
    return [
        ScoredPair(pair.sample, reference, variant)
        for pair in pairs
        if (reference := _get_value(score, pair.sample.reference)) is not None
        and (variant := _get_value(score, pair.result.image)) is not None
    ]


def _get_value(score: Score, picture: ImageResult | None) -> float | None:
    return picture.values.get(score.name) if picture else None


def _sign(score: Score) -> int:
    return 1 if score.higher_is_better else -1


def _compute_drop(score: Score, one: ScoredPair) -> float:
    return _sign(score) * (one.reference - one.variant)


# ---------------------------------------------------------------- means


def _group_by_category(items: Sequence[tuple[Prompt, T]]) -> dict[str, list[T]]:
    """Languages first, then categories; pictures that nobody asked for with words have no language."""
    groups: dict[str, list[T]] = {}
    for prompt, item in items:
        language = {"language": prompt.language} if prompt.prompt else {}
        for key, value in (language | prompt.categories).items():
            groups.setdefault(f"{key}: {value}", []).append(item)
    return {name: groups[name] for name in sorted(groups, key=lambda name: (not name.startswith("language: "), name))}


def _summarize_group(
    name: str, pairs: Sequence[VariantPair], pair_scores: Sequence[Score], picture_scores: Sequence[Score]
) -> ScoreGroup:
    compared = {score.name: _summarize_pair_score(score, pairs) for score in pair_scores}
    judged = {score.name: _summarize_image_score(score, pairs) for score in picture_scores}
    return ScoreGroup(
        name=name,
        num_pairs=len(pairs),
        pair_scores={name: summary for name, summary in compared.items() if summary},
        image_scores={name: summary for name, summary in judged.items() if summary},
    )


def _summarize_pair_score(score: Score, pairs: Sequence[VariantPair]) -> PairScoreSummary | None:
    """None where no pair was measured."""
    measured = _pair_score_values(score, pairs)
    mean = bootstrap_mean([one.variant for one in measured], [one.sample.prompt.id for one in measured])
    if mean is None:
        return None
    worst = min(measured, key=lambda one: _sign(score) * one.variant)
    return PairScoreSummary(
        mean=mean, worst=worst.variant, worst_prompt=worst.sample.prompt.id, worst_seed=worst.sample.seed
    )


def _summarize_image_score(score: Score, pairs: Sequence[VariantPair]) -> ImageScoreSummary | None:
    """None where no picture was measured."""
    measured = _image_score_values(score, pairs)
    clusters = [one.sample.prompt.id for one in measured]
    reference = bootstrap_mean([one.reference for one in measured], clusters)
    variant = bootstrap_mean([one.variant for one in measured], clusters)
    drop = bootstrap_mean([_compute_drop(score, one) for one in measured], clusters)
    if reference is None or variant is None or drop is None:
        return None
    relative = drop.mean / abs(reference.mean) if reference.mean else None
    return ImageScoreSummary(reference=reference, variant=variant, drop=drop, relative_drop=relative)


# ---------------------------------------------------------------- tests and lists


def _binary_values(score: Score, pairs: Sequence[VariantPair]) -> tuple[list[float], list[float]] | None:
    """Both pictures' scores where these are 0 or 1 and there are any."""
    measured = _image_score_values(score, pairs) if score.binary else []
    return ([one.reference for one in measured], [one.variant for one in measured]) if measured else None


def _detectable_effects(
    pairs: Sequence[VariantPair], pair_scores: Sequence[Score], picture_scores: Sequence[Score]
) -> dict[str, float]:
    """By score; left out where it is not known."""
    values = [(score, one.sample, one.variant) for score in pair_scores for one in _pair_score_values(score, pairs)]
    values += [
        (score, one.sample, _compute_drop(score, one))
        for score in picture_scores
        for one in _image_score_values(score, pairs)
    ]
    found: dict[str, float] = {}
    for score in (*pair_scores, *picture_scores):
        own = [(value, row.prompt.id) for name, row, value in values if name is score]
        numbers, clusters = [value for value, _ in own], [prompt for _, prompt in own]
        if (smallest := minimum_detectable_effect(numbers, clusters, is_fraction=score.unit == "%")) is not None:
            found[score.name] = smallest
    return found


def _find_worst_pairs(score: Score, pairs: Sequence[VariantPair]) -> list[WorstPair]:
    measured = sorted(_pair_score_values(score, pairs), key=lambda one: _sign(score) * one.variant)
    return [_worst(score, one, one.variant) for one in measured[:NUM_WORST_PAIRS]]


def _find_largest_drops(score: Score, pairs: Sequence[VariantPair]) -> list[WorstPair]:
    """The largest drops, if there are any."""
    measured = sorted(_image_score_values(score, pairs), key=lambda one: -_compute_drop(score, one))
    return [_worst(score, one, drop) for one in measured[:NUM_WORST_PAIRS] if (drop := _compute_drop(score, one)) > 0]


def _worst(score: Score, one: ScoredPair, value: float) -> WorstPair:
    return WorstPair(score=score.name, prompt=one.sample.prompt.id, seed=one.sample.seed, value=value)


def _list_failures(pairs: Sequence[VariantPair]) -> list[FailedPair]:
    return [
        FailedPair(prompt=pair.sample.prompt.id, seed=pair.sample.seed, failure=pair.result.failure)
        for pair in pairs
        if pair.result.failure is not None
    ]


def _list_defects(pairs: Sequence[VariantPair]) -> list[DefectRecord]:
    return [
        DefectRecord(prompt=row.prompt.id, seed=row.seed, defect=picture.defect, new=not _is_defective(row.reference))
        for row, variant in pairs
        if (picture := variant.image) and picture.defect
    ]


def _is_defective(picture: ImageResult | None) -> bool:
    return picture is not None and picture.defect is not None
