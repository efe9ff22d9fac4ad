"""Pressing a pipeline end to end, on the real classes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import edit_weights, store_as_published, write_tiny_pipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

import edgepress.loading  # noqa: F401  registers the loader
from edgepress.common.errors import UserError
from edgepress.numerics.affine import dequantize
from edgepress.numerics.awq_packing import AwqTensors, unpack_awq
from edgepress.pipelines.sampling import generate_images, load_pipeline, resolve_sampling
from edgepress.prompts.prompt import load_prompts
from edgepress.quantize.pipeline import QuantizeResult, quantize_pipeline
from edgepress.recipes import schema as recipes
from edgepress.recipes.schema import GenerationSettings, QuantizationSettings, Recipe
from edgepress.storage.manifest import hash_file, read_manifest

CALIBRATION = GenerationSettings(count=2, steps=2)
METHODS = ("rtn", "awq", "best")


def recipe_for(method: str) -> Recipe:
    return Recipe(
        device="test", quantize=QuantizationSettings.model_validate({"method": method}), calibration=CALIBRATION
    )


@pytest.fixture(scope="module")
def pressed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, QuantizeResult]:
    """The tiny pipeline, pressed by each method."""
    folder = tmp_path_factory.mktemp("pressed")
    return {method: quantize_pipeline(recipe_for(method), tiny, folder / method) for method in METHODS}


def text_states(folder: Path) -> Tensor:
    """What the pipeline reads of a text encoder, for two prompts of which one is padded."""
    from transformers import Qwen3Model

    model = Qwen3Model.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(48).reshape(2, 24)
    mask = torch.arange(24) < torch.tensor([[24], [9]])
    with torch.no_grad():
        states: Tensor = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
    return states[mask]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("method", METHODS)
def test_stock_from_pretrained_gives_a_working_pipeline(
    tiny: Path, pressed: dict[str, QuantizeResult], method: str
) -> None:
    from diffusers import ZImagePipeline

    pipeline = ZImagePipeline.from_pretrained(pressed[method].output / "model")
    pipeline.set_progress_bar_config(disable=True)
    prompts, sampling = load_prompts(tiny / "prompts" / "evaluation.jsonl"), resolve_sampling(CALIBRATION, tiny)
    variant = np.asarray(generate_images(pipeline, prompts, sampling)[0], np.float64)
    reference = np.asarray(generate_images(load_pipeline(tiny, torch.float32), prompts, sampling)[0], np.float64)
    assert variant.std() > 1
    assert not np.array_equal(variant, reference), "nothing was quantized"
    assert np.abs(variant - reference).mean() < 12, "the pressed pipeline paints something else"


def test_the_stored_weights_are_the_original_ones_within_the_grid(
    tiny: Path, pressed: dict[str, QuantizeResult]
) -> None:
    """Rounding alone folds nothing, so each weight must be within half a step of the original."""
    original = load_file(tiny / "transformer" / "diffusion_pytorch_model.safetensors")
    stored = load_file(pressed["rtn"].output / "model" / "transformer" / "diffusion_pytorch_model.safetensors")
    name = "layers.0.feed_forward.w2"
    packed = AwqTensors(*(stored[f"{name}.{kind}"] for kind in AwqTensors._fields))
    error = (dequantize(unpack_awq(packed)) - original[f"{name}.weight"]).abs()
    steps = packed.scales.T.float().repeat_interleave(128, dim=1)
    assert (error <= steps * 0.51).all(), f"off by {(error / steps).max():.3f} steps"
    assert f"{name}.weight" not in stored


def test_awq_loses_less_than_rounding_in_every_part(pressed: dict[str, QuantizeResult]) -> None:
    layers = pressed["awq"].manifest.layers
    assert len(layers) == 5 * 7
    assert np.mean([layer["error"] for layer in layers]) < np.mean([layer["rtn_error"] for layer in layers])
    assert all(layer["error"] < 0.05 for layer in layers)


def test_rounding_reports_equal_errors_before_and_after(pressed: dict[str, QuantizeResult]) -> None:
    assert all(layer["error"] == pytest.approx(layer["rtn_error"]) for layer in pressed["rtn"].manifest.layers)


def test_no_layer_of_the_best_is_worse_than_rounding_or_falls_back_on_a_step(
    pressed: dict[str, QuantizeResult],
) -> None:
    layers = pressed["best"].manifest.layers
    rounded = {layer["layer"]: layer["error"] for layer in pressed["rtn"].manifest.layers}
    assert {layer["layer"] for layer in layers} == rounded.keys()
    for layer in layers:
        assert list(layer["steps"]) == ["rtn", "gptq"]
        errors = list(layer["steps"].values())
        assert errors == sorted(errors, reverse=True), layer
        assert layer["rtn_error"] == errors[0] == pytest.approx(rounded[layer["layer"]], rel=1e-4)
        assert layer["error"] == errors[-1]


def test_the_best_loses_less_than_awq_and_awq_less_than_rounding(pressed: dict[str, QuantizeResult]) -> None:
    mean = {method: np.mean([layer["error"] for layer in found.manifest.layers]) for method, found in pressed.items()}
    assert mean["best"] < 0.8 * mean["awq"] < 0.8 * mean["rtn"]


def test_rounding_alone_is_reported_alike_whatever_the_method(pressed: dict[str, QuantizeResult]) -> None:
    """What rounding alone would have cost does not depend on what was done instead."""
    rounded = {layer["layer"]: layer["error"] for layer in pressed["rtn"].manifest.layers}
    reported = {layer["layer"]: layer["rtn_error"] for layer in pressed["awq"].manifest.layers}
    assert reported == pytest.approx(rounded, rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_the_same_bytes(pressed: dict[str, QuantizeResult], method: str) -> None:
    found, rounded = pressed[method].manifest, pressed["rtn"].manifest
    assert found.size_savings == rounded.size_savings
    files, expected = (
        {file.path: file.bytes for file in manifest.files if ".safetensors" in file.path}
        for manifest in (found, rounded)
    )
    assert files == expected


def test_what_is_not_quantized_is_kept_to_the_bit(tiny: Path, pressed: dict[str, QuantizeResult]) -> None:
    output = pressed["rtn"].output / "model"
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert hash_file(tiny / vae) == hash_file(output / vae)
    before = load_file(tiny / "text_encoder" / "model.safetensors")
    after = load_file(output / "text_encoder" / "model.safetensors")
    for name in ("embed_tokens.weight", "layers.1.input_layernorm.weight", "norm.weight"):
        assert torch.equal(before[name], after[name]), name


def test_what_nobody_reads_is_dropped_and_the_output_identical(
    tiny: Path, pressed: dict[str, QuantizeResult], tmp_path: Path
) -> None:
    """Beside a copy of the pressed text encoder that has its last layer, in full precision."""
    lean, whole = pressed["best"].output / "model" / "text_encoder", tmp_path / "whole"
    shutil.copytree(lean, whole)
    layer = {
        name: tensor
        for name, tensor in load_file(tiny / "text_encoder" / "model.safetensors").items()
        if "s.2." in name
    }
    assert len(layer) > 7
    with edit_weights(whole) as tensors:
        assert not layer.keys() & tensors.keys()
        tensors.update(layer)
    config = json.loads((whole / "config.json").read_text())
    said = config["quantization_config"]
    assert said.pop("unread") == ["layers.2"]
    kept = [name.removesuffix(".weight") for name, tensor in layer.items() if tensor.ndim == 2]
    assert not set(kept) & set(said["modules_to_not_convert"])
    said["modules_to_not_convert"] += kept
    (whole / "config.json").write_text(json.dumps(config))
    assert torch.equal(text_states(lean), text_states(whole))


def test_the_half_of_the_vae_that_nobody_runs_can_be_dropped(
    tiny: Path, pressed: dict[str, QuantizeResult], tmp_path: Path
) -> None:
    recipe = recipe_for("rtn")
    components = ("transformer", "text_encoder", "vae")
    recipe = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"components": components})})
    lean = quantize_pipeline(recipe, tiny, tmp_path / "lean")
    prompts, sampling = load_prompts(tiny / "prompts" / "evaluation.jsonl"), resolve_sampling(CALIBRATION, tiny)
    folders = [one.output / "model" for one in (lean, pressed["rtn"])]
    with_encoder, without = (load_pipeline(folder, torch.float32) for folder in reversed(folders))
    ours, theirs = (np.asarray(generate_images(pipeline, prompts, sampling)[0]) for pipeline in (without, with_encoder))
    assert np.array_equal(ours, theirs)
    stored = load_file(tiny / "vae" / "diffusion_pytorch_model.safetensors")
    dropped = sum(tensor.nbytes for name, tensor in stored.items() if name.startswith("encoder."))
    assert lean.manifest.size_savings["vae"]["unread parts"] == dropped > 0
    size = lean.manifest.sizes["vae"]
    assert size["before"] - size["after"] > 0.95 * dropped
    with pytest.raises(NotImplementedError, match="not stored"):
        without.vae.encode(torch.zeros(1, 3, 16, 16))


def test_a_vae_alone_needs_no_calibration(tiny: Path, tmp_path: Path) -> None:
    recipe = recipe_for("best")
    recipe = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"components": ("vae",)})})
    pressed = quantize_pipeline(recipe, tiny, tmp_path / "artifact")
    assert "calibrating on prompts" not in pressed.seconds
    assert pressed.manifest.layers == []


def test_the_manifest_tells_the_truth(tiny: Path, pressed: dict[str, QuantizeResult]) -> None:
    artifact = pressed["awq"].output
    manifest = read_manifest(artifact)
    assert manifest is not None
    for files, root in ((manifest.sources, tiny), (manifest.files, artifact / "model")):
        on_disk = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        assert {file.path for file in files} == on_disk
        assert all(file.sha256 == hash_file(root / file.path) for file in files)
    sizes = manifest.sizes["transformer"]
    assert sizes["after"] < 0.5 * sizes["before"]
    assert manifest.fp16_overflows == []
    timings = json.loads((artifact / "timings.json").read_text())
    assert timings == pressed["awq"].seconds
    assert {"calibrating on prompts", "calibrating on pictures", "solving"} <= timings.keys()


def test_the_configs_speak_autoawq(pressed: dict[str, QuantizeResult]) -> None:
    for component in ("transformer", "text_encoder"):
        config = json.loads((pressed["awq"].output / "model" / component / "config.json").read_text())
        said = config["quantization_config"]
        assert said["quant_method"] == "awq"
        assert (said["bits"], said["group_size"], said["zero_point"], said["version"]) == (4, 128, True, "gemm")
        assert said["modules_to_not_convert"]


def test_pressing_again_does_nothing_and_another_recipe_is_refused(tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    assert quantize_pipeline(recipe_for("rtn"), tiny, output).created
    assert not quantize_pipeline(recipe_for("rtn"), tiny, output).created
    with pytest.raises(UserError, match="--force"):
        quantize_pipeline(recipe_for("awq"), tiny, output)
    assert quantize_pipeline(recipe_for("awq"), tiny, output, force=True).created
    assert not list(output.glob(".work/*/")), "work was left behind"


def test_a_changed_weight_file_is_noticed(tiny: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "pipeline", tmp_path / "artifact"
    shutil.copytree(tiny, source)
    first = quantize_pipeline(recipe_for("rtn"), source, output)
    file = source / "vae" / "config.json"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(UserError, match="made from another recipe, prompt set, model"):
        quantize_pipeline(recipe_for("rtn"), source, output)
    assert quantize_pipeline(recipe_for("rtn"), source, output, force=True).manifest.key != first.manifest.key


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
            quantize_pipeline(recipe_for("rtn"), source, output)
    assert not (output / "model").exists()


def test_an_output_inside_the_model_folder_is_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match="lies inside the model folder"):
        quantize_pipeline(recipe_for("rtn"), tiny, tiny / "pressed")


def test_a_layer_of_zeros_loses_nothing(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "pipeline"
    shutil.copytree(tiny, source)
    file = source / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["layers.0.attention.to_v.weight"].zero_()
    save_file(weights, file)
    layers = quantize_pipeline(recipe_for("awq"), source, tmp_path / "artifact").manifest.layers
    assert next(layer for layer in layers if layer["layer"].endswith("layers.0.attention.to_v"))["error"] == 0


# ---------------------------------------------------------------- as it is published


@pytest.mark.parametrize("head", [False, True])
def test_a_text_encoder_stored_as_a_causal_model_gives_the_same_artifact(
    tiny: Path, pressed: dict[str, QuantizeResult], tmp_path: Path, head: bool
) -> None:
    source = tmp_path / "published"
    shutil.copytree(tiny, source)
    store_as_published(source, head)
    found = quantize_pipeline(recipe_for("best"), source, tmp_path / "artifact")
    model, expected = found.output / "model", pressed["best"].output / "model"
    for component, file in (("text_encoder", "model"), ("transformer", "diffusion_pytorch_model")):
        path = f"{component}/{file}.safetensors"
        assert hash_file(model / path) == hash_file(expected / path), path
    assert torch.equal(text_states(model / "text_encoder"), text_states(expected / "text_encoder"))
    prompts, sampling = load_prompts(tiny / "prompts" / "evaluation.jsonl")[:1], resolve_sampling(CALIBRATION, tiny)
    pictures = [
        np.asarray(generate_images(load_pipeline(each, torch.float32), prompts, sampling)[0])
        for each in (model, expected)
    ]
    assert np.array_equal(*pictures)


# ---------------------------------------------------------------- same bytes, bounded memory


def press_alone(tiny: Path, output: Path, recipe: str, threads: int) -> None:
    recipe_file = output.with_suffix(".yaml")
    recipe_file.write_text(recipe)
    words = ["quantize", "--recipe", str(recipe_file), "--model", str(tiny), "--output", str(output)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-m", "edgepress", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_bytes_whatever_the_number_of_threads(tiny: Path, tmp_path: Path, dtype: str) -> None:
    recipe = f"device: test\ndtype: {dtype}\nquantize: {{embeddings: int8}}\ncalibration: {{count: 2, steps: 2}}\n"
    for threads in (1, 2, 3):
        press_alone(tiny, tmp_path / str(threads), recipe, threads)
    one, two, three = (digests(tmp_path / str(threads) / "model") for threads in (1, 2, 3))
    assert one == two == three


PEAK = """
import sys
from functools import partial
from pathlib import Path

from edgepress.storage.checkpoint import write_sharded
from edgepress.quantize import write
from edgepress.quantize.pipeline import press
from edgepress.recipes.schema import Recipe

write.write_sharded = partial(write_sharded, shard_bytes=20_000_000)  # little beside the weights, as in a large model
recipe = {"device": "test", "dtype": "float32", "quantize": {"method": sys.argv[3], "components": ["transformer"]}}
recipe |= {"calibration": {"count": 1, "steps": 1}}
press(Recipe.model_validate(recipe), Path(sys.argv[1]), Path(sys.argv[2]), memory=1)
status = Path("/proc/self/status").read_text().splitlines()
print(*(line.split()[1] for line in status if line.startswith("VmHWM")))
"""


def test_what_a_method_means_is_part_of_the_key(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantize_pipeline(recipe_for("best"), tiny, tmp_path / "artifact")
    monkeypatch.setitem(recipes.METHOD_STEPS, "best", ())
    with pytest.raises(UserError, match="--force"):
        quantize_pipeline(recipe_for("best"), tiny, tmp_path / "artifact")


def test_an_artifact_that_lost_a_file_is_not_up_to_date(tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    quantize_pipeline(recipe_for("rtn"), tiny, output)
    lost = output / "model" / "text_encoder" / "model.safetensors"
    lost.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is not the file .* --force"):
        quantize_pipeline(recipe_for("rtn"), tiny, output)
    assert quantize_pipeline(recipe_for("rtn"), tiny, output, force=True).created
    assert lost.exists()


def test_others_may_read_what_the_umask_lets_them(pressed: dict[str, QuantizeResult]) -> None:
    rights = {path.suffix: path.stat().st_mode & 0o777 for path in (pressed["rtn"].output / "model").rglob("*.*")}
    assert rights[".safetensors"] == rights[".json"]


DAMAGES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a component left out": ("model_index.json", {"transformer": None}, "names no transformer"),
    "more layers": ("transformer/config.json", {"n_layers": 9}, "lacks the weight layers"),
    "another width": ("transformer/config.json", {"cap_feat_dim": 64}, "has the shape"),
    "an impossible config": ("transformer/config.json", {"axes_dims": [2, 2, 2]}, "does not describe a ZImageTransf"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_weights_and_config_of_different_models_are_refused_in_a_sentence(
    name: str, tiny: Path, tmp_path: Path
) -> None:
    file, change, sentence = DAMAGES[name]
    source = tmp_path / "pipeline"
    shutil.copytree(tiny, source)
    content = json.loads((source / file).read_text())
    (source / file).write_text(json.dumps(content | change))
    with pytest.raises(UserError, match=sentence):
        quantize_pipeline(recipe_for("rtn"), source, tmp_path / "artifact")
    assert not (tmp_path / "artifact" / "model").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_layers(tmp_path: Path) -> None:
    """Blocks of 16 million weights, 64 MB: 7 of them, and 13; with fewer the heap is not at its height yet."""
    peaks = {}
    for layers in (5, 11):
        source = tmp_path / f"pipeline-{layers}"
        write_tiny_pipeline(source, dim=1152, layers=layers)
        words = [str(source), str(tmp_path / f"artifact-{layers}"), "best"]
        done = subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks[layers] = 1024 * int(done.stdout)
        weights = sum(file.stat().st_size for file in (source / "transformer").glob("*.safetensors"))
        shutil.rmtree(tmp_path)  # the smaller one goes before the larger is written
        tmp_path.mkdir()
    assert weights > 800e6
    assert peaks[11] - peaks[5] < 80e6, f"{peaks[5] / 1e6:.0f} MB, then {peaks[11] / 1e6:.0f} MB"
