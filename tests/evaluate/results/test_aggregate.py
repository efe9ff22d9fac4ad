from __future__ import annotations

from collections.abc import Sequence

import pytest
from helpers.result_rows import (
    EXACT,
    FLIP,
    PSNR,
    TEXT,
    VARIANT,
    make_failed_pair,
    make_pair,
    make_prompt,
    make_results,
    make_sample,
    make_sample_with,
)

from edgepress.evaluate.metrics.base import Score
from edgepress.evaluate.results.aggregate import (
    NUM_WORST_PAIRS,
    aggregate,
    find_missing_scores,
    find_reference_defects,
    find_text_remarks,
    group_samples,
    select_variant,
)
from edgepress.evaluate.results.schema import ImageResult, SampleResult, VariantSummary


def summarize(
    samples: Sequence[SampleResult],
    pair_scores: Sequence[Score] = (PSNR, FLIP),
    image_scores: Sequence[Score] = (TEXT,),
) -> VariantSummary:
    return aggregate(select_variant(samples, VARIANT), pair_scores, image_scores)


def test_means_worst_pair_and_drop_computed_by_hand() -> None:
    samples = [
        make_sample(make_prompt("a"), 30.0, (1.0, 0.5), flip=0.1),
        make_sample(make_prompt("b"), 20.0, (1.0, 1.0), flip=0.3),
        make_sample(make_prompt("b"), 25.0, (0.5, 0.0), flip=0.2, seed=1),
    ]
    summary = summarize(samples)
    overall = summary.groups[0]
    assert (summary.num_pairs, summary.num_prompts, summary.num_identical, overall.name) == (3, 2, 0, "all")
    psnr, flip = overall.pair_scores["psnr"], overall.pair_scores["flip"]
    text = overall.image_scores["text_accuracy"]
    assert psnr.mean.mean == 25
    assert (psnr.mean.low, psnr.mean.high) == (22.5, 30)  # prompt b alone, prompt a alone
    assert (psnr.worst, psnr.worst_prompt, psnr.worst_seed) == (20, "b", 0)
    assert (flip.worst, flip.worst_prompt) == (0.3, "b")
    assert [text.reference.mean, text.variant.mean, text.drop.mean] == pytest.approx([5 / 6, 1 / 2, 1 / 3])
    assert (text.drop.low, text.drop.high) == (0.25, 0.5)
    assert text.relative_drop == pytest.approx((1 / 3) / (5 / 6))


def test_the_drop_is_positive_if_a_score_that_is_better_when_lower_has_risen() -> None:
    errors = TEXT.model_copy(update={"higher_is_better": False})
    summary = summarize([make_sample(make_prompt("a"), 30.0, (0.1, 0.4))], [], [errors])
    assert summary.groups[0].image_scores["text_accuracy"].drop.mean == pytest.approx(0.3)


def test_a_reference_of_0_has_no_relative_drop() -> None:
    summary = summarize([make_sample(make_prompt("a"), 30.0, (0.0, 0.5))])
    assert summary.groups[0].image_scores["text_accuracy"].relative_drop is None


def test_identical_pairs_are_counted_and_do_not_change_psnr() -> None:
    summary = summarize([make_sample(make_prompt("a"), None), make_sample(make_prompt("b"), 40.0)])
    assert summary.num_identical == 1
    assert summary.groups[0].pair_scores["psnr"].mean.mean == 40
    assert summary.groups[0].pair_scores["psnr"].mean.count == 1


def test_scores_that_no_image_has_are_left_out() -> None:
    summary = summarize([make_sample(make_prompt("a"), None, (None, None))], [PSNR])
    assert (summary.groups[0].pair_scores, summary.groups[0].image_scores) == ({}, {})


def test_an_image_score_needs_both_images() -> None:
    samples = [make_sample(make_prompt("a"), 30.0, (1.0, None)), make_sample(make_prompt("b"), 30.0, (0.5, 0.5))]
    text = summarize(samples).groups[0].image_scores["text_accuracy"]
    assert (text.reference.mean, text.variant.mean, text.drop.mean, text.drop.count) == (0.5, 0.5, 0, 1)


def test_failed_pairs_are_listed_and_excluded_from_means() -> None:
    samples = [
        make_sample(make_prompt("a"), 30.0, (1.0, 0.5)),
        make_sample_with(make_prompt("b"), make_failed_pair("size 64x48 instead of 64x64")),
    ]
    summary = summarize(samples)
    assert (summary.num_pairs, summary.num_prompts) == (1, 1)
    assert [(failed.prompt, failed.failure) for failed in summary.failures] == [("b", "size 64x48 instead of 64x64")]
    assert summary.groups[0].image_scores["text_accuracy"].reference.count == 1
    assert [group.num_pairs for group in summary.groups] == [1, 1]


def test_without_compared_pairs_there_are_no_means() -> None:
    summary = summarize([make_sample_with(make_prompt("a"), make_failed_pair())])
    assert (summary.num_pairs, len(summary.failures)) == (0, 1)
    assert (summary.groups[0].pair_scores, summary.groups[0].image_scores) == ({}, {})
    assert summary.minimum_detectable_effect == {}


def test_groups_are_all_then_languages_then_categories() -> None:
    samples = [
        make_sample(make_prompt("a", size="large"), 30.0),
        make_sample(make_prompt("b", "zh", size="small", lines="2"), 20.0),
    ]
    groups = group_samples(samples)
    assert list(groups) == ["all", "language: en", "language: zh", "lines: 2", "size: large", "size: small"]
    assert [len(members) for members in groups.values()] == [2, 1, 1, 1, 1, 1]
    assert [group.name for group in summarize(samples).groups] == list(groups)


def test_images_without_prompts_have_no_language() -> None:
    blank = make_prompt("a").model_copy(update={"prompt": ""})
    assert list(group_samples([make_sample(blank, 30.0)])) == ["all"]


def test_defects_are_new_unless_the_reference_has_one() -> None:
    samples = [
        make_sample_with(make_prompt("a"), make_pair(9.0, 0, defect="black")),
        make_sample_with(make_prompt("b"), make_pair(9.0, 0, defect="flat"), defect="flat"),
        make_sample(make_prompt("c"), 9.0),
    ]
    records = [(record.prompt, record.defect, record.new) for record in summarize(samples).defects]
    assert records == [("a", "black", True), ("b", "flat", False)]
    assert [(record.prompt, record.defect) for record in find_reference_defects(samples)] == [("b", "flat")]


def test_missing_scores_are_listed_once_per_sample_and_reason() -> None:
    def remove_score(image: ImageResult | None) -> ImageResult:
        assert image
        changes = {"values": image.values | {"text_accuracy": None}, "notes": {"text_accuracy": ("too long",)}}
        return image.model_copy(update=changes)

    complete, incomplete = make_sample(make_prompt("a"), 30.0), make_sample(make_prompt("b"), 30.0)
    pair = incomplete.variants[VARIANT]
    changes = {
        "reference": remove_score(incomplete.reference),
        "variants": {VARIANT: pair.model_copy(update={"image": remove_score(pair.image)})},
    }
    missing = find_missing_scores(make_results([complete, incomplete.model_copy(update=changes)]))
    assert [(sample.prompt.id, reason) for sample, reason in missing] == [("b", "no text accuracy: too long")]


Notes = dict[str, tuple[str, ...]]


def note_text(sample: SampleResult, reference: Notes, variant: Notes) -> SampleResult:
    """Returns the sample with these notes on its images."""
    pair = sample.variants[VARIANT]
    assert sample.reference
    assert pair.image
    image = pair.image.model_copy(update={"notes": variant})
    return sample.model_copy(
        update={
            "reference": sample.reference.model_copy(update={"notes": reference}),
            "variants": {VARIANT: pair.model_copy(update={"image": image})},
        }
    )


def test_reason_why_a_pair_has_no_score_is_listed_with_the_scores_that_lack_it() -> None:
    sample = make_sample(make_prompt("a"), None)
    reason = ("an image is too small",)
    pair = make_pair(None).model_copy(
        update={"values": {"psnr": None, "flip": None}, "notes": {"psnr": reason, "flip": reason}}
    )
    missing = find_missing_scores(make_results([sample.model_copy(update={"variants": {VARIANT: pair}})]))
    assert [reason for _, reason in missing] == ["no PSNR, FLIP: an image is too small"]


def test_text_that_does_not_count_is_listed_by_its_reason() -> None:
    turned = {"read": (), "remarks": ("read, but turned by 90°: OPEN", "read, but turned by 90°: NOW")}
    samples = [
        note_text(make_sample(make_prompt("a"), 30.0), {"read": ("OPEN",)}, turned),
        note_text(make_sample(make_prompt("b"), 30.0), {"read": ()}, {"read": ()}),
        note_text(make_sample(make_prompt("c"), 30.0), {"read": ("OPEN",)}, {"read": ()}),
        note_text(make_sample(make_prompt("d"), 30.0), {}, {}),  # a prompt without text
    ]
    by_prompt = [[(s.prompt.id, remark) for s, remark in find_text_remarks(samples, name)] for name in (VARIANT, None)]
    assert by_prompt == [
        [
            ("a", "read, but turned by 90°"),
            ("b", "no text was read, nor in the reference's image"),
            ("c", "no text was read"),
        ],
        [("b", "no text was read")],
    ]


def test_worst_pairs_are_sorted_by_each_score() -> None:
    samples = [
        make_sample(make_prompt(str(number)), 20.0 + number, (1, number / 20), flip=number / 100)
        for number in range(15)
    ]
    worst = summarize(samples).worst_pairs
    by_score = {
        name: [pair.prompt for pair in worst if pair.score == name] for name in ("psnr", "flip", "text_accuracy")
    }
    assert by_score["psnr"] == by_score["text_accuracy"] == [str(number) for number in range(NUM_WORST_PAIRS)]
    assert by_score["flip"] == [str(number) for number in range(14, 14 - NUM_WORST_PAIRS, -1)]


def test_pairs_without_a_drop_are_not_listed_as_worst() -> None:
    worst = summarize([make_sample(make_prompt("a"), 30.0)]).worst_pairs
    assert [pair.score for pair in worst] == ["psnr", "flip"]


def test_binary_scores_have_mcnemars_test() -> None:
    samples = [make_sample(make_prompt(str(number)), 30.0, (1, 0 if number < 3 else 1)) for number in range(10)]
    summary = summarize(samples, image_scores=(TEXT, EXACT))
    assert list(summary.mcnemar) == ["exact"]
    assert (summary.mcnemar["exact"].only_reference, summary.mcnemar["exact"].only_variant) == (3, 0)
