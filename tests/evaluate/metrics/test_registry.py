from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.evaluate import metrics
from edgepress.evaluate.metrics.base import list_image_scores, list_pair_scores
from edgepress.evaluate.metrics.registry import load_metrics

NEW = """
from edgepress.evaluate.metrics.registry import PairMetric, Score

def make(settings):
    return PairMetric("{name}", (Score(name="{score}", title="new"),), lambda: "1", lambda a, b, prompt: {{}})
"""
LACKING = """
from edgepress.evaluate.metrics.registry import Score, Unavailable

def make(settings):
    return Unavailable("lacking", (Score(name="lacking", title="new"),), "no weights were given")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where metrics are found, too."""
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    return tmp_path


def test_the_folder_is_what_is_found() -> None:
    found = load_metrics()
    files = sorted(path.stem for path in Path(metrics.__file__).parent.glob("*.py") if path.stem != "__init__")
    assert sorted(metric.name for metric in (*found.metrics, *found.unavailable)) == files
    assert {"psnr", "ssim"} <= {score.name for score in list_pair_scores(found.metrics)}
    assert {"text_accuracy", "exact", "ned"} <= {score.name for score in list_image_scores(found.metrics)}


def test_with_true_pictures_pair_scores_are_picture_scores_too() -> None:
    metric = load_metrics(selected=["psnr"]).metrics
    assert [score.name for score in list_image_scores(metric)] == []
    assert [(score.name, score.unit) for score in list_image_scores(metric, ground_truth=True)] == [
        ("truth_psnr", "dB")
    ]


def test_a_new_file_is_all_that_a_new_metric_needs(folder: Path) -> None:
    (folder / "sharpness.py").write_text(NEW.format(name="sharpness", score="edges"))
    assert "sharpness" in [metric.name for metric in load_metrics().metrics]


def test_two_scores_of_one_name_are_refused(folder: Path) -> None:
    (folder / "second.py").write_text(NEW.format(name="second", score="psnr"))
    with pytest.raises(ValueError, match="same name"):
        load_metrics()


def test_what_cannot_be_measured_is_named_with_its_reason(folder: Path) -> None:
    (folder / "lacking.py").write_text(LACKING)
    found = {metric.name: metric.reason for metric in load_metrics().unavailable}
    assert found["lacking"] == "no weights were given"


def test_what_is_asked_for_must_be_measured(folder: Path) -> None:
    (folder / "lacking.py").write_text(LACKING)
    with pytest.raises(UserError, match="'lacking' cannot be measured: no weights"):
        load_metrics(selected=["psnr", "lacking"])


def test_an_unknown_metric_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(UserError, match="no metric 'pnsr'; did you mean 'psnr'"):
        load_metrics(selected=["pnsr"])
