"""What `make artifact` does, from a pipeline to an artifact that is verified."""

from __future__ import annotations

import json
from pathlib import Path

import edgepress
from edgepress.recipes.schema import Recipe

SMALL = {"count": 1, "steps": 1, "size": [64, 64]}
RECIPE = {
    "device": "x86",
    "quantize": {"method": "rtn", "scheme": {"bits": 4, "group_size": 32}},
    "calibration": SMALL,
    "evaluation": {"count": 2, "steps": 1, "size": [64, 64], "gates": {"psnr_min": 1}},
}


def test_every_command_goes_on_with_what_the_one_before_it_wrote(tiny: Path, tmp_path: Path) -> None:
    recipe, artifact = Recipe.model_validate(RECIPE), tmp_path / "artifact"
    edgepress.quantize(recipe, model=tiny, output=artifact)
    exported = edgepress.export_onnx(recipe, output=artifact)
    results = edgepress.evaluate(
        recipe, model=tiny, candidates=[artifact], output=artifact / "evaluation", metrics=["psnr", "mae"]
    )
    description = edgepress.describe(artifact)
    assert description.evaluation is not None
    assert description.evaluation.verdict == results.verdict == "inconclusive"  # of two prompts
    assert set(description.evaluation.scores) == set(results.variants)
    assert edgepress.verify(artifact, run=True).passed
    goldens = {file.stem for file in (exported.folder / "golden").iterdir()}
    assert goldens <= set(description.components["onnx"].graphs)
    assert edgepress.diff(artifact, artifact).is_equal
    written = json.loads((artifact / "artifact.json").read_text("utf-8"))
    assert str(tmp_path) not in json.dumps(written)
