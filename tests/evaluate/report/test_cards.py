"""Score cards of hand-made samples, against means and counts by hand."""

from __future__ import annotations

import pytest
from helpers.result_rows import (
    FLIP,
    PSNR,
    TEXT,
    make_failed_pair,
    make_prompt,
    make_results,
    make_sample,
    make_sample_with,
)

from edgepress.evaluate.report.cards import ScoreCard, build_cards, is_worse_than_overall
from edgepress.evaluate.results.schema import PairScoreSummary, Results, ScoreGroup
from edgepress.evaluate.stats.bootstrap import MeanCI


@pytest.fixture
def results() -> Results:
    """The text is read worse in one image, better in another, and equally well in two."""
    texts = [(1.0, 0.5), (0.25, 1.0), (1.0, 1.0), (0.5, 0.5)]
    samples = [
        make_sample(make_prompt(str(number)), 30.0 + number, pair, flip=0.1 * number)
        for number, pair in enumerate(texts)
    ]
    return make_results(samples, image_scores=(TEXT,))


def get_card(results: Results, name: str) -> ScoreCard:
    return next(card for card in build_cards(results) if card.score.name == name)


def test_there_is_a_card_for_every_score_that_has_values(results: Results) -> None:
    assert sorted(card.score.name for card in build_cards(results)) == ["flip", "psnr", "text_accuracy"]
    failed = make_results([make_sample_with(make_prompt("a"), make_failed_pair())])
    assert build_cards(failed) == []


def test_a_pair_scores_card_has_its_mean(results: Results) -> None:
    for name, mean in (("psnr", 31.5), ("flip", 0.15)):
        card = get_card(results, name)
        (stats,) = card.variants
        assert card.is_pair_score
        assert isinstance(stats.summary, PairScoreSummary)
        assert stats.mean.mean == pytest.approx(mean)
        assert stats.outcome_counts is None


def test_an_image_scores_card_has_the_drop_and_who_is_worse(results: Results) -> None:
    card = get_card(results, "text_accuracy")
    (stats,) = card.variants
    assert not card.is_pair_score
    assert stats.mean.mean == pytest.approx((0.5 - 0.75 + 0 + 0) / 4)
    assert stats.outcome_counts == (1, 2, 1)  # worse, equal, better


def test_without_a_second_run_there_is_no_noise_floor(results: Results) -> None:
    assert [card.noise_floor for card in build_cards(results)] == [None] * 3


@pytest.mark.parametrize(
    ("name", "interval", "is_worse"),
    [
        ("psnr", (20, 29), True),
        ("psnr", (20, 31), False),
        ("psnr", (31, 40), False),
        ("flip", (0.3, 0.4), True),
        ("flip", (0.1, 0.4), False),
        ("flip", (0.0, 0.1), False),
    ],
)
def test_a_group_is_worse_if_its_whole_interval_is(name: str, interval: tuple[float, float], is_worse: bool) -> None:
    """Than means of 30 dB of PSNR, where more is better, and of 0.2 of FLIP, where less is."""
    score = {"psnr": PSNR, "flip": FLIP}[name]

    def make_group(mean: float, low: float, high: float) -> ScoreGroup:
        summary = PairScoreSummary.model_construct(mean=MeanCI(mean=mean, low=low, high=high, count=9))
        return ScoreGroup.model_construct(pair_scores={name: summary}, image_scores={})

    overall = make_group({"psnr": 30, "flip": 0.2}[name], *interval)
    assert is_worse_than_overall(make_group(sum(interval) / 2, *interval), overall, score) == is_worse
