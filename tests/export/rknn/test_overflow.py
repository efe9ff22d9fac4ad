"""A text encoder that float16 cannot hold: the simulator tells, and powers of two folded when it is pressed cure it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.tiny import edit_weights
from helpers.toolkit import needs_toolkit

from edgepress.common.errors import UserError
from edgepress.export.rknn.exporter import export_rknn
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import Recipe, RknnSettings

SETTINGS = RknnSettings(target="rk3588", precision="fp16", max_prompt_tokens=32)
TEXT = ("text_encoder",)
# Of linears one after another: what enters at the first leaves at the second, whose weights must stay above the
# smallest that float16 has.
LOUD = {"v_proj": 2.0**18, "o_proj": 2.0**-12, "up_proj": 2.0**18, "down_proj": 2.0**-12}


@pytest.fixture(scope="module")
def loud(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loud") / "pipeline"
    shutil.copytree(tiny, folder)
    with edit_weights(folder / "text_encoder") as tensors:
        for name, tensor in tensors.items():
            tensor *= LOUD.get(name.split(".")[-2], 1.0)
    return folder


def quantize_model(model: Path, output: Path, safe: bool) -> Path:
    quantize = {"method": "rtn", "components": TEXT, "fp16_safe": safe}
    quantize_pipeline(
        Recipe.model_validate({"device": "test", "quantize": quantize, "calibration": {"count": 1}}), model, output
    )
    return output


@needs_toolkit
@pytest.mark.slow
def test_what_overflows_float16_is_refused(loud: Path, tmp_path: Path) -> None:
    for source in (loud, quantize_model(loud, tmp_path / "pressed", safe=False)):
        with pytest.raises(UserError, match=r"text_encoder is refused .*(overflows float16|error is)"):
            export_rknn(source, tmp_path / "pressed", SETTINGS, TEXT)
    assert not (tmp_path / "pressed" / "rknn").exists()


@needs_toolkit
@pytest.mark.slow
def test_powers_of_two_that_are_folded_cure_it(loud: Path, tmp_path: Path) -> None:
    artifact = quantize_model(loud, tmp_path / "pressed", safe=True)
    export_rknn(artifact, artifact, SETTINGS, TEXT)
    content = json.loads((artifact / "rknn" / "pipeline.json").read_text())
    (part,) = content["graphs"]["text_encoder"]
    assert part["simulated"]["relative"] <= 2e-3
    assert part["operators"]["elsewhere"] == []
