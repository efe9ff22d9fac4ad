"""The table of pipeline classes: which classes it lists, and one of them tried in every column."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.benchmarks.quantization import families
from edgepress.benchmarks.quantization.family_catalog import list_text_to_image_classes
from edgepress.benchmarks.quantization.family_trial import COMPARES, EXPORTS, GENERATES, QUANTIZING, run_trial


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
def test_a_class_that_nobody_described_does_everything_but_export(tmp_path: Path) -> None:
    trial = run_trial("PixArtSigmaPipeline", tmp_path)
    assert trial.works(*QUANTIZING, COMPARES)
    assert "PixArtSigmaPipeline" in trial.reasons[EXPORTS]
    assert GENERATES not in trial.reasons
    assert trial.layers > 0
    assert trial.errors is not None
    assert trial.errors.high is not None
    assert trial.errors.high < 0  # the error is smaller than that of rounding to nearest
    table = families._render([trial], [trial.name, "FluxPipeline"])
    text = " ".join(table.split())
    assert "2 text-to-image classes" in text
    assert "The whole interval is below 1 in 1 of 1 classes" in text
    assert "1 were tried" in text
    assert "1 can be quantized, opened again and evaluated, 0 be exported, and 0 generate without torch" in text
    assert "Not tried yet: `FluxPipeline`." in table
    assert "| `PixArtSigmaPipeline` | ● | ● | ● | ● | ● | – | – |" in table


def test_a_class_without_a_tiny_config_says_why_and_tries_nothing_more(tmp_path: Path) -> None:
    trial = run_trial("AudioLDM2Pipeline", tmp_path)
    assert list(trial.reasons) == ["tiny pipeline"]
    assert "no tiny config of" in trial.reasons["tiny pipeline"]
    assert f"- tiny pipeline, `AudioLDM2Pipeline`: {trial.reasons['tiny pipeline'][:100]}" in families._render(
        [trial], [trial.name, "FluxPipeline"]
    )
