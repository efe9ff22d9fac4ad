"""An artifact that the commit 0b5298e made opens, generates, evaluates and exports with this version.

It is tests/data/artifact-0b5298e.tar.xz: a tiny pipeline with random weights, rounded to 4 bits in groups of 32, with
an extra scheme for W8A8, exported to ONNX and evaluated on three prompts. Its recipe, in the keys of its time:

    quantize:
      method: rtn
      components: [transformer, text_encoder, vae]
      scheme: {bits: 4, group_size: 32, zero_point: true}
      also:
        w8a8: {bits: 8, group_size: channel, zero_point: false, narrow: true, activations: dynamic, keep_above: 0.001}
      embeddings: int8
    export: {precision: int4, flavour: ort, floats: fp16}
    calibration: {prompts: own, count: 2, size: [32, 32], steps: 2}
    evaluation: {prompts: own, count: 3, size: [32, 32], steps: 2, gates: {psnr_min: 5}}
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.previous_artifact import extract_previous_artifact

import edgepress
from edgepress.api.folder_info import ArtifactInfo
from edgepress.evaluate.results.results_file import load_results
from edgepress.recipes.schema import Recipe
from edgepress.storage.manifest import read_manifest


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_previous_artifact(tmp_path_factory.mktemp("previous"))


def test_its_manifest_and_recipe_are_read_in_the_new_keys(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    assert manifest is not None
    recipe = Recipe.model_validate(manifest.recipe)
    scheme = recipe.quantize.extra_schemes["w8a8"]
    assert (scheme.symmetric, scheme.narrow_range, scheme.max_output_error) == (True, True, 0.001)
    assert (recipe.export.format, recipe.export.float_dtype, recipe.calibration.prompts) == ("ort", "fp16", "auto")
    assert len(manifest.extra_scheme_layers["w8a8"]) == len(manifest.layers) > 0
    assert all("stays_float" in layer for layer in manifest.layers)


def test_it_is_described(artifact: Path) -> None:
    info = edgepress.info(artifact)
    assert isinstance(info, ArtifactInfo)
    assert (info.device, info.method) == ("old", "rtn")
    assert info.model is not None
    assert [component.quantization for component in info.model.components if component.quantization]
    assert info.exports[0].summary.startswith("ONNX int4, format ort")
    assert "image" in info.exports[0].verification
    assert "evaluation/results.json" in info.evaluation


def test_its_results_are_read(artifact: Path) -> None:
    results = load_results(artifact / "evaluation" / "results.json")
    assert len(results.samples) == 3
    assert all(np.isfinite(pair.values["psnr"]) for sample in results.samples for pair in sample.variants.values())


def test_its_graphs_generate_without_torch(artifact: Path) -> None:
    pipeline = edgepress.ImagePipeline(artifact)
    first, second, changed = (pipeline("a cat", seed=seed, steps=2, size=(32, 48)) for seed in (3, 3, 4))
    assert first.size == (48, 32)
    assert first == second != changed


@pytest.mark.slow
def test_diffusers_and_the_graphs_generate_the_same_image(artifact: Path) -> None:
    """The graphs were at more than 40 dB from torch when they were exported."""
    import torch

    from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline, prompt_seed
    from edgepress.prompts.reader import load_prompts

    prompt = load_prompts(artifact / "model" / "prompts" / "evaluation.jsonl")[0]
    sampling = SamplingParams(height=32, width=32, steps=2, guidance=0.0)
    (reference,) = generate_images(load_pipeline(artifact / "model", torch.float32), [prompt], sampling)
    image = edgepress.ImagePipeline(artifact)(prompt.prompt, seed=prompt_seed(prompt.id, 0), steps=2, size=(32, 32))
    error = np.mean((np.asarray(image, np.float64) - np.asarray(reference, np.float64)) ** 2)
    assert 10 * np.log10(255**2 / max(error, 1e-9)) > 40


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int4", "w8a8"])
def test_it_is_exported_again(artifact: Path, tmp_path: Path, precision: str) -> None:
    result = edgepress.export_onnx(model=artifact, output=tmp_path / "out", precision=precision, verify=False)
    old = {path.name for path in (artifact / "onnx").glob("*.onnx")}
    assert {path.name for path in result.graph_files} == old


@pytest.mark.slow
def test_it_is_evaluated(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results = edgepress.evaluate(
        Recipe.model_validate({"device": "old", "evaluation": {"count": 1, "size": [32, 32], "steps": 2}}),
        model=artifact / "onnx",
        candidates={"torch": artifact / "model"},
        output=tmp_path / "out",
        metrics=("psnr",),
    )
    (pair,) = results.samples[0].variants.values()
    assert pair.values["psnr"] > 40
