from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.evaluate import metrics
from edgepress.evaluate.metrics.base import list_image_scores, list_pair_scores
from edgepress.evaluate.metrics.registry import SUPPORT_MODULES, load_metrics

NEW_METRIC = """
from edgepress.evaluate.metrics.base import PairMetric, Score

def create_metric(settings):
    return PairMetric("{name}", (Score(name="{score}", title="new"),), lambda: "1", lambda a, b, prompt: {{}})
"""
LACKING_METRIC = """
from edgepress.evaluate.metrics.base import Score, UnavailableMetric

def create_metric(settings):
    return UnavailableMetric("lacking", (Score(name="lacking", title="new"),), "no weights were given")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second folder in which metrics are found."""
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    return tmp_path


def test_every_module_of_the_package_defines_a_metric() -> None:
    metric_set = load_metrics()
    files = {path.stem for path in Path(metrics.__file__).parent.glob("*.py")} - {"__init__", *SUPPORT_MODULES}
    assert {metric.name for metric in (*metric_set.metrics, *metric_set.unavailable)} == files
    assert {"psnr", "ssim"} <= {score.name for score in list_pair_scores(metric_set.metrics)}
    assert {"text_accuracy", "exact", "ned"} <= {score.name for score in list_image_scores(metric_set.metrics)}


def test_ground_truth_adds_pair_scores_to_the_image_scores() -> None:
    selected = load_metrics(selected=["psnr"]).metrics
    assert list_image_scores(selected) == ()
    assert [(score.name, score.unit) for score in list_image_scores(selected, ground_truth=True)] == [
        ("truth_psnr", "dB")
    ]


def test_new_module_adds_a_metric(folder: Path) -> None:
    (folder / "sharpness.py").write_text(NEW_METRIC.format(name="sharpness", score="edges"))
    assert "sharpness" in [metric.name for metric in load_metrics().metrics]


def test_duplicate_score_name_is_refused(folder: Path) -> None:
    (folder / "second.py").write_text(NEW_METRIC.format(name="second", score="psnr"))
    with pytest.raises(ValueError, match="same name"):
        load_metrics()


def test_unavailable_metric_has_a_reason(folder: Path) -> None:
    (folder / "lacking.py").write_text(LACKING_METRIC)
    reasons = {metric.name: metric.reason for metric in load_metrics().unavailable}
    assert reasons["lacking"] == "no weights were given"


def test_selected_metric_must_be_available(folder: Path) -> None:
    (folder / "lacking.py").write_text(LACKING_METRIC)
    with pytest.raises(UserError, match="'lacking' is not available: no weights"):
        load_metrics(selected=["psnr", "lacking"])


def test_unknown_metric_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="Unknown metric 'pnsr': did you mean 'psnr'"):
        load_metrics(selected=["pnsr"])
