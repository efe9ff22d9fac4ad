"""The article before names of classes."""

from __future__ import annotations

import pytest

from edgepress.common.articles import add_article

SPOKEN = {
    "AudioLDM2Pipeline": "an",
    "EulerDiscreteScheduler": "an",
    "IFPipeline": "an",
    "SD3Transformer2DModel": "an",
    "LTXPipeline": "an",
    "'AutoencoderKL'": "an",
    "UNet2DConditionModel": "a",
    "UMT5EncoderModel": "a",
    "T5EncoderModel": "a",
    "StableDiffusionPipeline": "a",
    "HunyuanDiTPipeline": "a",
    "'Qwen3Model'": "a",
    "PRXPipeline": "a",
    "": "a",
}


@pytest.mark.parametrize(("name", "article"), SPOKEN.items())
def test_the_article_is_that_of_the_spoken_name(name: str, article: str) -> None:
    assert add_article(name) == f"{article} {name}"
