from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.evaluate import metrics
from edgepress.evaluate.registry import discover, pair_scores, picture_scores

NEW = """
from edgepress.evaluate.registry import PairMetric, Score

METRIC = PairMetric("{name}", (Score(name="{score}", title="new"),), lambda: "1", lambda a, b, prompt: {{}})
"""


def test_the_folder_is_what_is_found() -> None:
    found = discover()
    files = sorted(path.stem for path in Path(metrics.__file__).parent.glob("*.py") if path.stem != "__init__")
    assert [metric.name for metric in found] == files
    assert {"psnr", "ssim"} <= {score.name for score in pair_scores(found)}
    assert {"text_accuracy", "exact", "ned"} <= {score.name for score in picture_scores(found)}


def test_a_new_file_is_all_that_a_new_metric_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sharpness.py").write_text(NEW.format(name="sharpness", score="edges"))
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    assert "sharpness" in [metric.name for metric in discover()]


def test_two_scores_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "second.py").write_text(NEW.format(name="second", score="psnr"))
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match="same name"):
        discover()
