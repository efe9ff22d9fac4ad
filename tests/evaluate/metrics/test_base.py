from __future__ import annotations

import pytest

from edgepress.evaluate.metrics.base import (
    ImageMetric,
    MetricResult,
    PairMetric,
    Score,
    UnavailableMetric,
    list_image_scores,
    list_pair_scores,
    make_ground_truth_score,
)


def make_score(name: str) -> Score:
    return Score(name=name, title=name.upper(), unit="dB")


def make_pair_metric(*names: str, against_ground_truth: bool = False) -> PairMetric:
    scores = tuple(map(make_score, names))
    return PairMetric(names[0], scores, lambda: "1", lambda *_: {}, against_ground_truth)


TEXT = ImageMetric("text", (make_score("text"), make_score("exact")), lambda: "1", lambda *_: MetricResult({}, {}))
METRICS = [make_pair_metric("psnr", "mae", against_ground_truth=True), TEXT, make_pair_metric("flip")]


def test_pair_scores_are_those_of_all_metrics_of_pairs_in_order() -> None:
    missing = UnavailableMetric("lpips", (make_score("lpips"),), "no weights were given")
    assert [score.name for score in list_pair_scores([*METRICS, missing])] == ["psnr", "mae", "flip"]


@pytest.mark.parametrize(
    ("has_ground_truth", "names"),
    [(False, ["text", "exact"]), (True, ["truth_psnr", "truth_mae", "text", "exact"])],
)
def test_ground_truth_makes_scores_of_pairs_scores_of_images(has_ground_truth: bool, names: list[str]) -> None:
    assert [score.name for score in list_image_scores(METRICS, has_ground_truth)] == names


def test_a_score_against_the_ground_truth_differs_in_its_name_and_title_alone() -> None:
    score = Score(name="flip", title="FLIP", higher_is_better=False)
    changed = make_ground_truth_score(score)
    assert (changed.name, changed.title) == ("truth_flip", "FLIP to ground truth")
    assert changed.model_copy(update={"name": "flip", "title": "FLIP"}) == score
