"""The table of pipeline classes: which classes it lists, and one of them tried in every column."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.benchmarks.quantization.family_catalog import list_text_to_image_classes
from edgepress.benchmarks.quantization.family_trial import COLUMNS, run_trial


@pytest.mark.slow
def test_classes_that_need_only_a_prompt_are_listed() -> None:
    names = list_text_to_image_classes()
    assert {"FluxPipeline", "StableDiffusionXLPipeline", "QwenImagePipeline", "ZImagePipeline"} <= set(names)
    unlisted = {
        "WanPipeline",
        "DiTPipeline",
        "FluxControlNetPipeline",
        "StableDiffusionInpaintPipeline",
        "AudioLDM2Pipeline",
    }
    assert not unlisted & set(names)
    assert names == sorted(set(names))


@pytest.mark.slow
def test_a_class_that_nobody_described_works_in_every_column(tmp_path: Path) -> None:
    trial = run_trial("PixArtSigmaPipeline", tmp_path)
    assert trial.reasons == dict.fromkeys(COLUMNS, "")
    assert trial.layers > 0
    assert trial.ratio is not None
    assert trial.ratio < 1


def test_a_class_without_a_tiny_config_says_why_and_tries_nothing_more(tmp_path: Path) -> None:
    trial = run_trial("AudioLDM2Pipeline", tmp_path)
    assert list(trial.reasons) == ["tiny pipeline"]
    assert "no tiny config of" in trial.reasons["tiny pipeline"]
