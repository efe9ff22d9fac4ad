"""A text encoder that overflows float16: the simulator detects it, and folding powers of two avoids it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.previous_export import check_untouched
from helpers.tiny import edit_weights
from helpers.toolkit import needs_toolkit

from edgepress.common.errors import UserError
from edgepress.export.rknn.exporter import export_rknn
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.rknn import RknnSettings
from edgepress.recipes.schema import Recipe

RECIPE = Recipe(device="test", rknn=RknnSettings(target="rk3588", precision="fp16", max_prompt_tokens=32))
TEXT = ("text_encoder",)
# Factors of two linears in a row: the second undoes the first. Its weights must not underflow float16.
FACTORS = {"v_proj": 2.0**18, "o_proj": 2.0**-12, "up_proj": 2.0**18, "down_proj": 2.0**-12}
# The same, but float16 can hold the scales of their codes, so that quantizing moves no power of two.
FACTORS_OF_PRECISE_SCALES = {"v_proj": 2.0**18, "o_proj": 2.0**-4, "up_proj": 2.0**18, "down_proj": 2.0**-4}


def multiply_weights(source: Path, folder: Path, factors: dict[str, float]) -> Path:
    shutil.copytree(source, folder)
    with edit_weights(folder / "text_encoder") as tensors:
        for name, tensor in tensors.items():
            tensor *= factors.get(name.split(".")[-2], 1.0)
    return folder


@pytest.fixture(scope="module")
def overflowing(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return multiply_weights(tiny, tmp_path_factory.mktemp("overflowing") / "pipeline", FACTORS)


def quantize_model(model: Path, output: Path, fp16_safe: bool) -> Path:
    quantize = {"method": "rtn", "components": TEXT, "fp16_safe": fp16_safe}
    quantize_pipeline(
        Recipe.model_validate({"device": "test", "quantize": quantize, "calibration": {"count": 1}}), model, output
    )
    return output


@needs_toolkit
@pytest.mark.slow
def test_a_part_that_overflows_float16_is_rejected(
    tiny: Path, overflowing: Path, occupied: Path, tmp_path: Path
) -> None:
    unbalanced = multiply_weights(tiny, tmp_path / "pipeline", FACTORS_OF_PRECISE_SCALES)
    quantized = quantize_model(unbalanced, tmp_path / "quantized", fp16_safe=False)
    for source, output in ((overflowing, occupied), (quantized, quantized)):
        with pytest.raises(UserError, match=r"text_encoder was rejected .*(overflows float16|error is)"):
            export_rknn(source, output, RECIPE, components=TEXT)
    check_untouched(occupied)
    assert not (quantized / "rknn").exists()


@needs_toolkit
@pytest.mark.slow
def test_folding_powers_of_two_avoids_the_overflow(overflowing: Path, tmp_path: Path) -> None:
    artifact = quantize_model(overflowing, tmp_path / "quantized", fp16_safe=True)
    export_rknn(artifact, artifact, RECIPE, components=TEXT)
    content = json.loads((artifact / "rknn" / "pipeline.json").read_text())
    (part,) = content["graphs"]["text_encoder"]
    assert part["simulated"]["relative_error"] <= 2e-3
    assert part["operators"]["not_on_npu"] == []
