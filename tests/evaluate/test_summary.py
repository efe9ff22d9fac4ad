from __future__ import annotations

import pytest

from edgepress.evaluate.summary import grouped, summarise

from .rows import FLIP, PSNR, TEXT, picture, prompt, row


def test_means_worst_and_drop_by_hand() -> None:
    rows = [
        row(prompt("a"), 30.0, (1.0, 0.5), flip=0.1),
        row(prompt("b"), 20.0, (1.0, 1.0), flip=0.3),
        row(prompt("b"), 25.0, (0.5, 0.0), flip=0.2, seed=1),
    ]
    summary = summarise(rows, [PSNR, FLIP], [TEXT])
    everything = summary.groups[0]
    assert (summary.pictures, summary.prompts, summary.identical, everything.name) == (3, 2, 0, "all")
    psnr, flip, text = everything.pairs["psnr"], everything.pairs["flip"], everything.scores["text_accuracy"]
    assert psnr.mean.mean == 25
    assert (psnr.mean.low, psnr.mean.high) == (22.5, 30)  # prompt b alone, prompt a alone
    assert (psnr.worst, psnr.worst_prompt, psnr.worst_seed) == (20, "b", 0)
    assert (flip.worst, flip.worst_prompt) == (0.3, "b")
    assert [text.reference.mean, text.variant.mean, text.drop.mean] == pytest.approx([5 / 6, 1 / 2, 1 / 3])
    assert (text.drop.low, text.drop.high) == (0.25, 0.5)


def test_a_drop_is_above_0_where_a_lower_score_is_better_and_has_risen() -> None:
    errors = TEXT.model_copy(update={"higher_is_better": False})
    summary = summarise([row(prompt("a"), 30.0, (0.1, 0.4))], [], [errors])
    assert summary.groups[0].scores["text_accuracy"].drop.mean == pytest.approx(0.3)


def test_identical_pairs_are_counted_and_leave_psnr_alone() -> None:
    summary = summarise([row(prompt("a"), None), row(prompt("b"), 40.0)], [PSNR], [TEXT])
    assert summary.identical == 1
    assert summary.groups[0].pairs["psnr"].mean.mean == 40
    assert summary.groups[0].pairs["psnr"].mean.count == 1


def test_what_was_measured_on_no_picture_is_left_out() -> None:
    summary = summarise([row(prompt("a"), None, (None, None))], [PSNR], [TEXT])
    assert (summary.groups[0].pairs, summary.groups[0].scores) == ({}, {})


def test_a_picture_score_needs_both_pictures() -> None:
    rows = [row(prompt("a"), 30.0, (1.0, None)), row(prompt("b"), 30.0, (0.5, 0.5))]
    text = summarise(rows, [], [TEXT]).groups[0].scores["text_accuracy"]
    assert (text.reference.mean, text.variant.mean, text.drop.mean, text.drop.count) == (0.5, 0.5, 0, 1)


def test_groups_are_all_then_languages_then_categories() -> None:
    rows = [row(prompt("a", size="large"), 30.0), row(prompt("b", "zh", size="small", lines="2"), 20.0)]
    groups = grouped(rows)
    assert list(groups) == ["all", "language: en", "language: zh", "lines: 2", "size: large", "size: small"]
    assert [len(members) for members in groups.values()] == [2, 1, 1, 1, 1, 1]


def test_defects_are_counted() -> None:
    rows = [row(prompt("a"), 9.0).model_copy(update={"variant": picture(0, "black")}), row(prompt("b"), 9.0)]
    summary = summarise(rows, [PSNR], [TEXT])
    assert (summary.reference_defects, summary.variant_defects) == ({}, {"black": 1})


def test_no_rows_are_an_error() -> None:
    with pytest.raises(ValueError, match="no rows"):
        summarise([], [PSNR], [TEXT])
