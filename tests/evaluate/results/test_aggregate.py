from __future__ import annotations

from collections.abc import Sequence

import pytest
from helpers.result_rows import (
    EXACT,
    FLIP,
    PSNR,
    TEXT,
    VARIANT,
    failed_pair,
    make_prompt,
    make_results,
    pair_result,
    sample_result,
    sample_with,
)

from edgepress.evaluate.metrics.base import Score
from edgepress.evaluate.results.aggregate import (
    NUM_WORST_PAIRS,
    aggregate,
    find_missing_scores,
    find_reference_defects,
    group_samples,
    select_variant,
)
from edgepress.evaluate.results.schema import ImageResult, SampleResult, VariantSummary


def summary_of(
    rows: Sequence[SampleResult], pairs: Sequence[Score] = (PSNR, FLIP), pictures: Sequence[Score] = (TEXT,)
) -> VariantSummary:
    return aggregate(select_variant(rows, VARIANT), pairs, pictures)


def test_means_worst_and_drop_by_hand() -> None:
    rows = [
        sample_result(make_prompt("a"), 30.0, (1.0, 0.5), flip=0.1),
        sample_result(make_prompt("b"), 20.0, (1.0, 1.0), flip=0.3),
        sample_result(make_prompt("b"), 25.0, (0.5, 0.0), flip=0.2, seed=1),
    ]
    summary = summary_of(rows)
    everything = summary.groups[0]
    assert (summary.num_pairs, summary.num_prompts, summary.num_identical, everything.name) == (3, 2, 0, "all")
    psnr, flip, text = (
        everything.pair_scores["psnr"],
        everything.pair_scores["flip"],
        everything.image_scores["text_accuracy"],
    )
    assert psnr.mean.mean == 25
    assert (psnr.mean.low, psnr.mean.high) == (22.5, 30)  # prompt b alone, prompt a alone
    assert (psnr.worst, psnr.worst_prompt, psnr.worst_seed) == (20, "b", 0)
    assert (flip.worst, flip.worst_prompt) == (0.3, "b")
    assert [text.reference.mean, text.variant.mean, text.drop.mean] == pytest.approx([5 / 6, 1 / 2, 1 / 3])
    assert (text.drop.low, text.drop.high) == (0.25, 0.5)
    assert text.relative_drop == pytest.approx((1 / 3) / (5 / 6))


def test_a_drop_is_above_0_where_a_lower_score_is_better_and_has_risen() -> None:
    errors = TEXT.model_copy(update={"higher_is_better": False})
    summary = summary_of([sample_result(make_prompt("a"), 30.0, (0.1, 0.4))], [], [errors])
    assert summary.groups[0].image_scores["text_accuracy"].drop.mean == pytest.approx(0.3)


def test_a_reference_of_0_has_no_relative_drop() -> None:
    summary = summary_of([sample_result(make_prompt("a"), 30.0, (0.0, 0.5))])
    assert summary.groups[0].image_scores["text_accuracy"].relative_drop is None


def test_identical_pairs_are_counted_and_leave_psnr_alone() -> None:
    summary = summary_of([sample_result(make_prompt("a"), None), sample_result(make_prompt("b"), 40.0)])
    assert summary.num_identical == 1
    assert summary.groups[0].pair_scores["psnr"].mean.mean == 40
    assert summary.groups[0].pair_scores["psnr"].mean.count == 1


def test_what_was_measured_on_no_picture_is_left_out() -> None:
    summary = summary_of([sample_result(make_prompt("a"), None, (None, None))], [PSNR])
    assert (summary.groups[0].pair_scores, summary.groups[0].image_scores) == ({}, {})


def test_a_picture_score_needs_both_pictures() -> None:
    rows = [sample_result(make_prompt("a"), 30.0, (1.0, None)), sample_result(make_prompt("b"), 30.0, (0.5, 0.5))]
    text = summary_of(rows).groups[0].image_scores["text_accuracy"]
    assert (text.reference.mean, text.variant.mean, text.drop.mean, text.drop.count) == (0.5, 0.5, 0, 1)


def test_failed_pairs_are_listed_and_count_in_no_mean() -> None:
    rows = [
        sample_result(make_prompt("a"), 30.0, (1.0, 0.5)),
        sample_with(make_prompt("b"), failed_pair("size 64x48 instead of 64x64")),
    ]
    summary = summary_of(rows)
    assert (summary.num_pairs, summary.num_prompts) == (1, 1)
    assert [(one.prompt, one.failure) for one in summary.failures] == [("b", "size 64x48 instead of 64x64")]
    assert summary.groups[0].image_scores["text_accuracy"].reference.count == 1
    assert [group.num_pairs for group in summary.groups] == [1, 1]


def test_nothing_compared_has_no_means() -> None:
    summary = summary_of([sample_with(make_prompt("a"), failed_pair())])
    assert (summary.num_pairs, len(summary.failures)) == (0, 1)
    assert (summary.groups[0].pair_scores, summary.groups[0].image_scores, summary.minimum_detectable_effect) == (
        {},
        {},
        {},
    )


def test_groups_are_all_then_languages_then_categories() -> None:
    rows = [
        sample_result(make_prompt("a", size="large"), 30.0),
        sample_result(make_prompt("b", "zh", size="small", lines="2"), 20.0),
    ]
    groups = group_samples(rows)
    assert list(groups) == ["all", "language: en", "language: zh", "lines: 2", "size: large", "size: small"]
    assert [len(members) for members in groups.values()] == [2, 1, 1, 1, 1, 1]
    assert [group.name for group in summary_of(rows).groups] == list(groups)


def test_pictures_that_nobody_asked_for_in_words_have_no_language() -> None:
    unasked = make_prompt("a").model_copy(update={"prompt": ""})
    assert list(group_samples([sample_result(unasked, 30.0)])) == ["all"]


def test_defects_are_listed_and_told_from_those_of_the_reference() -> None:
    rows = [
        sample_with(make_prompt("a"), pair_result(9.0, 0, defect="black")),
        sample_with(make_prompt("b"), pair_result(9.0, 0, defect="flat"), defect="flat"),
        sample_result(make_prompt("c"), 9.0),
    ]
    found = [(one.prompt, one.defect, one.new) for one in summary_of(rows).defects]
    assert found == [("a", "black", True), ("b", "flat", False)]
    assert [(one.prompt, one.defect) for one in find_reference_defects(rows)] == [("b", "flat")]


def test_pictures_without_a_score_are_listed_with_the_reason_once() -> None:
    def without(made: ImageResult | None) -> ImageResult:
        assert made
        values = made.values | {"text_accuracy": None}
        return made.model_copy(update={"values": values, "notes": {"text_accuracy": ("too long",)}})

    whole, long = sample_result(make_prompt("a"), 30.0), sample_result(make_prompt("b"), 30.0)
    made = long.variants[VARIANT].model_copy(update={"picture": without(long.variants[VARIANT].image)})
    long = long.model_copy(update={"reference": without(long.reference), "variants": {VARIANT: made}})
    found = find_missing_scores(make_results([whole, long]))
    assert [(one.prompt.id, said) for one, said in found] == [("b", "no text accuracy: too long")]


def test_the_worst_of_each_score_come_first() -> None:
    rows = [
        sample_result(make_prompt(str(number)), 20.0 + number, (1, number / 20), flip=number / 100)
        for number in range(15)
    ]
    worst = summary_of(rows).worst_pairs
    by_score = {name: [one.prompt for one in worst if one.score == name] for name in ("psnr", "flip", "text_accuracy")}
    assert by_score["psnr"] == by_score["text_accuracy"] == [str(number) for number in range(NUM_WORST_PAIRS)]
    assert by_score["flip"] == [str(number) for number in range(14, 14 - NUM_WORST_PAIRS, -1)]


def test_drops_of_nothing_are_no_worst_ones() -> None:
    assert [one.score for one in summary_of([sample_result(make_prompt("a"), 30.0)]).worst_pairs] == ["psnr", "flip"]


def test_scores_of_0_and_1_are_tested() -> None:
    rows = [sample_result(make_prompt(str(number)), 30.0, (1, 0 if number < 3 else 1)) for number in range(10)]
    summary = summary_of(rows, pictures=(TEXT, EXACT))
    assert list(summary.mcnemar) == ["exact"]
    assert (summary.mcnemar["exact"].only_reference, summary.mcnemar["exact"].only_variant) == (3, 0)
