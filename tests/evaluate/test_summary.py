from __future__ import annotations

from collections.abc import Sequence

import pytest

from edgepress.evaluate.registry import Score
from edgepress.evaluate.results import PictureRow, Row, VariantSummary
from edgepress.evaluate.summary import WORST, grouped, pairs_of, reference_defects, summarise, unscored

from .rows import EXACT, FLIP, PSNR, TEXT, VARIANT, failed, prompt, results_of, row, row_of, variant


def summary_of(
    rows: Sequence[Row], pairs: Sequence[Score] = (PSNR, FLIP), pictures: Sequence[Score] = (TEXT,)
) -> VariantSummary:
    return summarise(pairs_of(rows, VARIANT), pairs, pictures)


def test_means_worst_and_drop_by_hand() -> None:
    rows = [
        row(prompt("a"), 30.0, (1.0, 0.5), flip=0.1),
        row(prompt("b"), 20.0, (1.0, 1.0), flip=0.3),
        row(prompt("b"), 25.0, (0.5, 0.0), flip=0.2, seed=1),
    ]
    summary = summary_of(rows)
    everything = summary.groups[0]
    assert (summary.pictures, summary.prompts, summary.identical, everything.name) == (3, 2, 0, "all")
    psnr, flip, text = everything.pairs["psnr"], everything.pairs["flip"], everything.scores["text_accuracy"]
    assert psnr.mean.mean == 25
    assert (psnr.mean.low, psnr.mean.high) == (22.5, 30)  # prompt b alone, prompt a alone
    assert (psnr.worst, psnr.worst_prompt, psnr.worst_seed) == (20, "b", 0)
    assert (flip.worst, flip.worst_prompt) == (0.3, "b")
    assert [text.reference.mean, text.variant.mean, text.drop.mean] == pytest.approx([5 / 6, 1 / 2, 1 / 3])
    assert (text.drop.low, text.drop.high) == (0.25, 0.5)
    assert text.relative == pytest.approx((1 / 3) / (5 / 6))


def test_a_drop_is_above_0_where_a_lower_score_is_better_and_has_risen() -> None:
    errors = TEXT.model_copy(update={"higher_is_better": False})
    summary = summary_of([row(prompt("a"), 30.0, (0.1, 0.4))], [], [errors])
    assert summary.groups[0].scores["text_accuracy"].drop.mean == pytest.approx(0.3)


def test_a_reference_of_0_has_no_relative_drop() -> None:
    summary = summary_of([row(prompt("a"), 30.0, (0.0, 0.5))])
    assert summary.groups[0].scores["text_accuracy"].relative is None


def test_identical_pairs_are_counted_and_leave_psnr_alone() -> None:
    summary = summary_of([row(prompt("a"), None), row(prompt("b"), 40.0)])
    assert summary.identical == 1
    assert summary.groups[0].pairs["psnr"].mean.mean == 40
    assert summary.groups[0].pairs["psnr"].mean.count == 1


def test_what_was_measured_on_no_picture_is_left_out() -> None:
    summary = summary_of([row(prompt("a"), None, (None, None))], [PSNR])
    assert (summary.groups[0].pairs, summary.groups[0].scores) == ({}, {})


def test_a_picture_score_needs_both_pictures() -> None:
    rows = [row(prompt("a"), 30.0, (1.0, None)), row(prompt("b"), 30.0, (0.5, 0.5))]
    text = summary_of(rows).groups[0].scores["text_accuracy"]
    assert (text.reference.mean, text.variant.mean, text.drop.mean, text.drop.count) == (0.5, 0.5, 0, 1)


def test_failed_pairs_are_listed_and_count_in_no_mean() -> None:
    rows = [row(prompt("a"), 30.0, (1.0, 0.5)), row_of(prompt("b"), failed("size 64x48 instead of 64x64"))]
    summary = summary_of(rows)
    assert (summary.pictures, summary.prompts) == (1, 1)
    assert [(one.prompt, one.failure) for one in summary.failures] == [("b", "size 64x48 instead of 64x64")]
    assert summary.groups[0].scores["text_accuracy"].reference.count == 1
    assert [group.pictures for group in summary.groups] == [1, 1]


def test_nothing_compared_has_no_means() -> None:
    summary = summary_of([row_of(prompt("a"), failed())])
    assert (summary.pictures, len(summary.failures)) == (0, 1)
    assert (summary.groups[0].pairs, summary.groups[0].scores, summary.detectable) == ({}, {}, {})


def test_groups_are_all_then_languages_then_categories() -> None:
    rows = [row(prompt("a", size="large"), 30.0), row(prompt("b", "zh", size="small", lines="2"), 20.0)]
    groups = grouped(rows)
    assert list(groups) == ["all", "language: en", "language: zh", "lines: 2", "size: large", "size: small"]
    assert [len(members) for members in groups.values()] == [2, 1, 1, 1, 1, 1]
    assert [group.name for group in summary_of(rows).groups] == list(groups)


def test_pictures_that_nobody_asked_for_in_words_have_no_language() -> None:
    unasked = prompt("a").model_copy(update={"prompt": ""})
    assert list(grouped([row(unasked, 30.0)])) == ["all"]


def test_defects_are_listed_and_told_from_those_of_the_reference() -> None:
    rows = [
        row_of(prompt("a"), variant(9.0, 0, defect="black")),
        row_of(prompt("b"), variant(9.0, 0, defect="flat"), defect="flat"),
        row(prompt("c"), 9.0),
    ]
    found = [(one.prompt, one.defect, one.new) for one in summary_of(rows).defects]
    assert found == [("a", "black", True), ("b", "flat", False)]
    assert [(one.prompt, one.defect) for one in reference_defects(rows)] == [("b", "flat")]


def test_pictures_without_a_score_are_listed_with_the_reason_once() -> None:
    def without(made: PictureRow | None) -> PictureRow:
        assert made
        values = made.values | {"text_accuracy": None}
        return made.model_copy(update={"values": values, "notes": {"text_accuracy": ("too long",)}})

    whole, long = row(prompt("a"), 30.0), row(prompt("b"), 30.0)
    made = long.variants[VARIANT].model_copy(update={"picture": without(long.variants[VARIANT].picture)})
    long = long.model_copy(update={"reference": without(long.reference), "variants": {VARIANT: made}})
    found = unscored(results_of([whole, long]))
    assert [(one.prompt.id, said) for one, said in found] == [("b", "no text accuracy: too long")]


def test_the_worst_of_each_score_come_first() -> None:
    rows = [row(prompt(str(number)), 20.0 + number, (1, number / 20), flip=number / 100) for number in range(15)]
    worst = summary_of(rows).worst
    by_score = {name: [one.prompt for one in worst if one.score == name] for name in ("psnr", "flip", "text_accuracy")}
    assert by_score["psnr"] == by_score["text_accuracy"] == [str(number) for number in range(WORST)]
    assert by_score["flip"] == [str(number) for number in range(14, 14 - WORST, -1)]


def test_drops_of_nothing_are_no_worst_ones() -> None:
    assert [one.score for one in summary_of([row(prompt("a"), 30.0)]).worst] == ["psnr", "flip"]


def test_scores_of_0_and_1_are_tested() -> None:
    rows = [row(prompt(str(number)), 30.0, (1, 0 if number < 3 else 1)) for number in range(10)]
    summary = summary_of(rows, pictures=(TEXT, EXACT))
    assert list(summary.mcnemar) == ["exact"]
    assert (summary.mcnemar["exact"].only_reference, summary.mcnemar["exact"].only_variant) == (3, 0)
