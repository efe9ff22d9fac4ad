"""Pressing a pipeline end to end, on the real classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import edgepress.loading  # noqa: F401  registers the loader
from edgepress.artifact import read_manifest, sha256
from edgepress.errors import UserError
from edgepress.grid import dequantize
from edgepress.int4 import AwqTensors, unpack_awq
from edgepress.prompts import load_prompts
from edgepress.quantize.press import Pressed, press
from edgepress.recipe import Pictures, Quantization, Recipe
from edgepress.sampling import load_pipeline, sample, sampling_of

CALIBRATION = Pictures(count=2, steps=2)


def recipe_for(method: str) -> Recipe:
    return Recipe(device="test", quantize=Quantization.model_validate({"method": method}), calibration=CALIBRATION)


@pytest.fixture(scope="module")
def pressed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pressed]:
    """The tiny pipeline, pressed by each method."""
    folder = tmp_path_factory.mktemp("pressed")
    return {method: press(recipe_for(method), tiny, folder / method) for method in ("rtn", "awq")}


def test_stock_from_pretrained_gives_a_working_pipeline(tiny: Path, pressed: dict[str, Pressed]) -> None:
    from diffusers import ZImagePipeline

    pipeline = ZImagePipeline.from_pretrained(pressed["awq"].output / "model")
    pipeline.set_progress_bar_config(disable=True)
    prompts, sampling = load_prompts(tiny / "prompts" / "evaluation.jsonl"), sampling_of(CALIBRATION, tiny)
    variant = np.asarray(sample(pipeline, prompts, sampling)[0], np.float64)
    reference = np.asarray(sample(load_pipeline(tiny, torch.float32), prompts, sampling)[0], np.float64)
    assert variant.std() > 1
    assert not np.array_equal(variant, reference), "nothing was quantized"
    assert np.abs(variant - reference).mean() < 12, "the pressed pipeline paints something else"


def test_the_stored_weights_are_the_original_ones_within_the_grid(tiny: Path, pressed: dict[str, Pressed]) -> None:
    """Rounding alone folds nothing, so each weight must be within half a step of the original."""
    original = load_file(tiny / "transformer" / "diffusion_pytorch_model.safetensors")
    stored = load_file(pressed["rtn"].output / "model" / "transformer" / "diffusion_pytorch_model.safetensors")
    name = "layers.0.feed_forward.w2"
    packed = AwqTensors(*(stored[f"{name}.{kind}"] for kind in AwqTensors._fields))
    error = (dequantize(unpack_awq(packed)) - original[f"{name}.weight"]).abs()
    steps = packed.scales.T.float().repeat_interleave(128, dim=1)
    assert (error <= steps * 0.51).all(), f"off by {(error / steps).max():.3f} steps"
    assert f"{name}.weight" not in stored


def test_awq_loses_less_than_rounding_in_every_part(pressed: dict[str, Pressed]) -> None:
    layers = pressed["awq"].manifest.layers
    assert len(layers) == 5 * 7
    assert np.mean([layer["error"] for layer in layers]) < np.mean([layer["rtn_error"] for layer in layers])
    assert all(layer["error"] < 0.05 for layer in layers)


def test_rounding_reports_equal_errors_before_and_after(pressed: dict[str, Pressed]) -> None:
    assert all(layer["error"] == pytest.approx(layer["rtn_error"]) for layer in pressed["rtn"].manifest.layers)


def test_what_is_not_quantized_is_kept_to_the_bit(tiny: Path, pressed: dict[str, Pressed]) -> None:
    output = pressed["rtn"].output / "model"
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert sha256(tiny / vae) == sha256(output / vae)
    before = load_file(tiny / "text_encoder" / "model.safetensors")
    after = load_file(output / "text_encoder" / "model.safetensors")
    for name in ("embed_tokens.weight", "layers.2.mlp.up_proj.weight", "norm.weight"):
        assert torch.equal(before[name], after[name]), name


def test_the_manifest_tells_the_truth(tiny: Path, pressed: dict[str, Pressed]) -> None:
    artifact = pressed["awq"].output
    manifest = read_manifest(artifact)
    assert manifest is not None
    for files, root in ((manifest.sources, tiny), (manifest.files, artifact / "model")):
        on_disk = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        assert {file.path for file in files} == on_disk
        assert all(file.sha256 == sha256(root / file.path) for file in files)
    sizes = manifest.sizes["transformer"]
    assert sizes["after"] < 0.5 * sizes["before"]


def test_the_configs_speak_autoawq(pressed: dict[str, Pressed]) -> None:
    for component in ("transformer", "text_encoder"):
        config = json.loads((pressed["awq"].output / "model" / component / "config.json").read_text())
        said = config["quantization_config"]
        assert said["quant_method"] == "awq"
        assert (said["bits"], said["group_size"], said["zero_point"], said["version"]) == (4, 128, True, "gemm")
        assert said["modules_to_not_convert"]


def test_pressing_again_does_nothing_and_another_recipe_is_refused(tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    assert press(recipe_for("rtn"), tiny, output).fresh
    assert not press(recipe_for("rtn"), tiny, output).fresh
    with pytest.raises(UserError, match="--force"):
        press(recipe_for("awq"), tiny, output)
    assert press(recipe_for("awq"), tiny, output, force=True).fresh
    assert not list(output.glob(".work/*/")), "work was left behind"


def test_a_changed_weight_file_is_noticed(tiny: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "pipeline", tmp_path / "artifact"
    shutil.copytree(tiny, source)
    first = press(recipe_for("rtn"), source, output)
    file = source / "vae" / "config.json"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(UserError, match="made from another recipe, prompt set, model"):
        press(recipe_for("rtn"), source, output)
    assert press(recipe_for("rtn"), source, output, force=True).manifest.key != first.manifest.key


def test_a_reference_that_overflows_is_refused_each_time(tiny: Path, tmp_path: Path) -> None:
    """Infinite activations from finite weights: said at once, never stored, and said again by the next run."""
    source, output = tmp_path / "pipeline", tmp_path / "artifact"
    shutil.copytree(tiny, source)
    file = source / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["layers.0.feed_forward.w1.weight"] *= 1e25
    weights["layers.0.feed_forward.w3.weight"] *= 1e25
    save_file(weights, file)
    for _ in range(2):
        with pytest.raises(UserError, match="NaN or infinite activations"):
            press(recipe_for("rtn"), source, output)
    assert not (output / "model").exists()


def test_an_output_inside_the_model_folder_is_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match="lies inside the model folder"):
        press(recipe_for("rtn"), tiny, tiny / "pressed")


def test_a_layer_of_zeros_loses_nothing(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "pipeline"
    shutil.copytree(tiny, source)
    file = source / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["layers.0.attention.to_v.weight"].zero_()
    save_file(weights, file)
    layers = press(recipe_for("awq"), source, tmp_path / "artifact").manifest.layers
    assert next(layer for layer in layers if layer["layer"].endswith("layers.0.attention.to_v"))["error"] == 0
