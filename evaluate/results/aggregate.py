"""Aggregates the samples of a variant: means with intervals, drops, tests, worst pairs. It looks at nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from ...prompts.prompt import Prompt
from ..generation.cost import BatchCost
from ..metrics.base import Score
from ..stats.bootstrap import NUM_RESAMPLES, bootstrap_mean
from ..stats.mcnemar import McNemarResult, mcnemar_test
from ..stats.power import minimum_detectable_effect
from .schema import (
    ALL_GROUP,
    READ,
    REMARKS,
    TRUNCATED,
    DefectRecord,
    FailedPair,
    GenerationCost,
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
NUM_WORST_PAIRS = 10  # per score


class VariantPair(NamedTuple):
    """A sample and the comparison of one variant.

    Attributes:
        sample: the prompt, the seed, and the reference's image.
        result: the variant's image and its pair scores.
    """

    sample: SampleResult
    result: PairResult


class ScoredPair(NamedTuple):
    """The values of one score for a pair.

    Attributes:
        sample: the sample.
        reference: the value of the reference's image; of a pair score, the same as `variant`.
        variant: the value of the variant's image, or of the pair.
    """

    sample: SampleResult
    reference: float
    variant: float


def select_variant(samples: Sequence[SampleResult], variant: str) -> list[VariantPair]:
    """Returns the pairs of one variant."""
    return [VariantPair(sample, sample.variants[variant]) for sample in samples]


def aggregate(
    pairs: Sequence[VariantPair],
    pair_scores: Sequence[Score],
    image_scores: Sequence[Score],
    num_resamples: int = NUM_RESAMPLES,
) -> VariantSummary:
    """Aggregates the pairs of a variant, over all of them and by language and category; failed pairs are left out.

    Args:
        pairs: The pairs.
        pair_scores: The scores of pairs.
        image_scores: The scores of images.
        num_resamples: How often prompts are resampled for the intervals; 0: there are none.
    """
    compared = [pair for pair in pairs if pair.result.failure is None]
    groups = {ALL_GROUP: compared} | _group_by_category([(pair.sample.prompt, pair) for pair in compared])
    tests = {score.name: _test_binary_score(score, compared) for score in image_scores}
    return VariantSummary(
        num_pairs=len(compared),
        num_prompts=len({pair.sample.prompt.id for pair in compared}),
        num_identical=sum(pair.result.identical for pair in compared),
        failures=tuple(_list_failures(pairs)),
        defects=tuple(_list_defects(pairs)),
        groups=tuple(
            _summarize_group(name, members, pair_scores, image_scores, num_resamples)
            for name, members in groups.items()
        ),
        mcnemar={name: test for name, test in tests.items() if test},
        minimum_detectable_effect=_compute_detectable_effects(compared, pair_scores, image_scores),
        worst_pairs=tuple(worst for score in pair_scores for worst in _find_worst_pairs(score, compared))
        + tuple(worst for score in image_scores for worst in _find_largest_drops(score, compared)),
    )


def group_samples(samples: Sequence[SampleResult]) -> dict[str, list[SampleResult]]:
    """Groups samples: all of them, then by language, then by each category."""
    return {ALL_GROUP: list(samples)} | _group_by_category([(sample.prompt, sample) for sample in samples])


def find_reference_defects(samples: Sequence[SampleResult]) -> tuple[DefectRecord, ...]:
    """Lists the defective images of the reference."""
    return tuple(
        DefectRecord(prompt=sample.prompt.id, seed=sample.seed, defect=sample.reference.defect, new=False)
        for sample in samples
        if sample.reference and sample.reference.defect
    )


def find_truncated_prompts(samples: Sequence[SampleResult], variant: str | None) -> list[tuple[SampleResult, str]]:
    """Lists the samples whose prompt was truncated.

    Args:
        samples: the samples.
        variant: the variant that truncated it, where the reference was not truncated alike; None: the reference.

    Returns:
        Each such sample with a sentence about what was cut off.
    """
    truncated = []
    for sample in samples:
        reference_notes = sample.reference.notes.get(TRUNCATED) if sample.reference else None
        image = sample.variants[variant].image if variant else sample.reference
        notes = image.notes.get(TRUNCATED) if image else None
        if notes and (variant is None or notes != reference_notes):
            truncated.append((sample, " ".join(notes)))
    return truncated


def find_text_remarks(samples: Sequence[SampleResult], variant: str | None) -> list[tuple[SampleResult, str]]:
    """Lists what is wrong with text that prompts ask for, apart from wrong letters and in defective images.

    Args:
        samples: the samples.
        variant: the variant whose images are looked at; None: the reference.

    Returns:
        Each such sample with a remark, once for each kind: that nothing was read, or the metric's, without the text.
    """
    remarked = []
    for sample in samples:
        image = sample.variants[variant].image if variant else sample.reference
        remarks = [remark.partition(": ")[0] for remark in image.notes.get(REMARKS, ())] if image else []
        if image and image.notes.get(READ) == () and not remarks and not image.defect:
            is_shared = variant and sample.reference and sample.reference.notes.get(READ) == ()
            remarks = ["no text was read" + (", nor in the reference's image" if is_shared else "")]
        remarked += [(sample, remark) for remark in dict.fromkeys(remarks)]
    return remarked


def find_missing_scores(results: Results) -> list[tuple[SampleResult, str]]:
    """Lists the samples for which a metric could not compute a score.

    A note under the name of a score that has no value is the metric's reason. Equal reasons of several scores or images
    of a sample are listed once.

    Returns:
        Each such sample with the titles of the scores and the reason.
    """
    titles = {score.name: score.title for score in (*results.pair_scores, *results.image_scores)}
    missing = []
    for sample in results.samples:
        scored = [sample.reference, *sample.variants.values(), *(pair.image for pair in sample.variants.values())]
        reasons: dict[str, list[str]] = {}
        for result in scored:
            for name, notes in result.notes.items() if result else ():
                if name in titles and result and result.values.get(name) is None:
                    reasons.setdefault(" ".join(notes), []).append(titles[name])
        missing += [(sample, f"no {', '.join(dict.fromkeys(names))}: {why}") for why, names in reasons.items()]
    return missing


def summarize_costs(costs: Sequence[BatchCost], is_whole_process: bool = False) -> GenerationCost | None:
    """Summarizes what batches cost; None if nothing is known."""
    steady = costs[1:] or costs  # the first one warms up
    seconds = [cost.seconds / cost.num_images for cost in steady for _ in range(cost.num_images)]
    mean = bootstrap_mean(seconds, [str(number) for number, cost in enumerate(steady) for _ in range(cost.num_images)])
    if mean is None:
        return None
    peaks = [cost.peak_memory for cost in costs if cost.peak_memory is not None]
    return GenerationCost(
        seconds=mean,
        batch_size=max(cost.num_images for cost in costs),
        peak_memory=max(peaks, default=None),
        whole_process=is_whole_process,
    )


# ---------------------------------------------------------------- values


def _collect_pair_values(score: Score, pairs: Sequence[VariantPair]) -> list[ScoredPair]:
    """Returns the pairs that have a pair score."""
    return [
        ScoredPair(pair.sample, value, value)
        for pair in pairs
        if (value := pair.result.values.get(score.name)) is not None
    ]


def _collect_image_values(score: Score, pairs: Sequence[VariantPair]) -> list[ScoredPair]:
    """Returns the pairs of which both images have an image score."""
    return [
        ScoredPair(pair.sample, reference, variant)
        for pair in pairs
        if (reference := _get_value(score, pair.sample.reference)) is not None
        and (variant := _get_value(score, pair.result.image)) is not None
    ]


def _get_value(score: Score, image: ImageResult | None) -> float | None:
    return image.values.get(score.name) if image else None


def _get_sign(score: Score) -> int:
    return 1 if score.higher_is_better else -1


def _compute_drop(score: Score, pair: ScoredPair) -> float:
    return _get_sign(score) * (pair.reference - pair.variant)


# ---------------------------------------------------------------- means


def _group_by_category(items: Sequence[tuple[Prompt, T]]) -> dict[str, list[T]]:
    """Groups by language, then by category. Images that were paired without prompts have no language."""
    groups: dict[str, list[T]] = {}
    for prompt, item in items:
        language = {"language": prompt.language} if prompt.prompt else {}
        for key, value in (language | prompt.categories).items():
            groups.setdefault(f"{key}: {value}", []).append(item)
    return {name: groups[name] for name in sorted(groups, key=lambda name: (not name.startswith("language: "), name))}


def _summarize_group(
    name: str,
    pairs: Sequence[VariantPair],
    pair_scores: Sequence[Score],
    image_scores: Sequence[Score],
    num_resamples: int,
) -> ScoreGroup:
    pair_summaries = {score.name: _summarize_pair_score(score, pairs, num_resamples) for score in pair_scores}
    image_summaries = {score.name: _summarize_image_score(score, pairs, num_resamples) for score in image_scores}
    return ScoreGroup(
        name=name,
        num_pairs=len(pairs),
        pair_scores={name: summary for name, summary in pair_summaries.items() if summary},
        image_scores={name: summary for name, summary in image_summaries.items() if summary},
    )


def _summarize_pair_score(score: Score, pairs: Sequence[VariantPair], num_resamples: int) -> PairScoreSummary | None:
    """Returns None if no pair has the score."""
    scored = _collect_pair_values(score, pairs)
    clusters = [pair.sample.prompt.id for pair in scored]
    mean = bootstrap_mean([pair.variant for pair in scored], clusters, num_resamples)
    if mean is None:
        return None
    worst = min(scored, key=lambda pair: _get_sign(score) * pair.variant)
    return PairScoreSummary(
        mean=mean, worst=worst.variant, worst_prompt=worst.sample.prompt.id, worst_seed=worst.sample.seed
    )


def _summarize_image_score(score: Score, pairs: Sequence[VariantPair], num_resamples: int) -> ImageScoreSummary | None:
    """Returns None if no pair has the score."""
    scored = _collect_image_values(score, pairs)
    clusters = [pair.sample.prompt.id for pair in scored]
    reference = bootstrap_mean([pair.reference for pair in scored], clusters, num_resamples)
    variant = bootstrap_mean([pair.variant for pair in scored], clusters, num_resamples)
    drop = bootstrap_mean([_compute_drop(score, pair) for pair in scored], clusters, num_resamples)
    if reference is None or variant is None or drop is None:
        return None
    relative_drop = drop.mean / abs(reference.mean) if reference.mean else None
    return ImageScoreSummary(reference=reference, variant=variant, drop=drop, relative_drop=relative_drop)


# ---------------------------------------------------------------- tests and lists


def _test_binary_score(score: Score, pairs: Sequence[VariantPair]) -> McNemarResult | None:
    """Returns None for a score that is not binary, and if no pair has it."""
    scored = _collect_image_values(score, pairs) if score.binary else []
    return mcnemar_test([pair.reference for pair in scored], [pair.variant for pair in scored]) if scored else None


def _compute_detectable_effects(
    pairs: Sequence[VariantPair], pair_scores: Sequence[Score], image_scores: Sequence[Score]
) -> dict[str, float]:
    """Returns the minimum detectable effect by score, without those that are unknown."""
    values = [
        (score, [(pair.variant, pair.sample.prompt.id) for pair in _collect_pair_values(score, pairs)])
        for score in pair_scores
    ]
    values += [
        (score, [(_compute_drop(score, pair), pair.sample.prompt.id) for pair in _collect_image_values(score, pairs)])
        for score in image_scores
    ]
    effects = {
        score.name: minimum_detectable_effect(
            [value for value, _ in scored], [prompt for _, prompt in scored], is_fraction=score.unit == "%"
        )
        for score, scored in values
    }
    return {name: effect for name, effect in effects.items() if effect is not None}


def _find_worst_pairs(score: Score, pairs: Sequence[VariantPair]) -> list[WorstPair]:
    scored = sorted(_collect_pair_values(score, pairs), key=lambda pair: _get_sign(score) * pair.variant)
    return [_make_worst_pair(score, pair, pair.variant) for pair in scored[:NUM_WORST_PAIRS]]


def _find_largest_drops(score: Score, pairs: Sequence[VariantPair]) -> list[WorstPair]:
    """Returns the pairs with the largest drops, without those that dropped nothing."""
    scored = sorted(_collect_image_values(score, pairs), key=lambda pair: -_compute_drop(score, pair))
    drops = [(pair, _compute_drop(score, pair)) for pair in scored[:NUM_WORST_PAIRS]]
    return [_make_worst_pair(score, pair, drop) for pair, drop in drops if drop > 0]


def _make_worst_pair(score: Score, pair: ScoredPair, value: float) -> WorstPair:
    return WorstPair(score=score.name, prompt=pair.sample.prompt.id, seed=pair.sample.seed, value=value)


def _list_failures(pairs: Sequence[VariantPair]) -> list[FailedPair]:
    return [
        FailedPair(prompt=pair.sample.prompt.id, seed=pair.sample.seed, failure=pair.result.failure)
        for pair in pairs
        if pair.result.failure is not None
    ]


def _list_defects(pairs: Sequence[VariantPair]) -> list[DefectRecord]:
    return [
        DefectRecord(
            prompt=sample.prompt.id,
            seed=sample.seed,
            defect=image.defect,
            new=sample.reference is None or sample.reference.defect is None,
        )
        for sample, result in pairs
        if (image := result.image) and image.defect
    ]
