"""Quantizing a pipeline end to end, on the real classes."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import run_command
from helpers.peak_memory import quantize_as_a_large_model
from helpers.tiny import edit_weights, store_as_published, write_tiny_pipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

import edgepress.loading  # noqa: F401  registers the loader
from edgepress.api.verification import verify
from edgepress.common.errors import UserError
from edgepress.numerics.affine import dequantize
from edgepress.numerics.awq_packing import AwqTensors, unpack_awq
from edgepress.pipelines.sampling import generate_images, load_pipeline, resolve_sampling
from edgepress.prompts.reader import load_prompts
from edgepress.quantize import run as run_module
from edgepress.quantize.model_size import estimate_output_bytes
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.quantize.plan import build_plan
from edgepress.quantize.result import QuantizeResult
from edgepress.recipes import schema as recipes
from edgepress.recipes.schema import GenerationSettings, QuantizationSettings, Recipe
from edgepress.storage.files import digest_files, hash_file
from edgepress.storage.layout import Artifact
from edgepress.storage.manifest import read_manifest
from edgepress.storage.pipeline_config import GraphConfig, OnnxPipelineConfig, write_config
from edgepress.storage.source_location import find_source

CALIBRATION = GenerationSettings(count=2, steps=2)
METHODS = ("rtn", "awq", "best")


def make_recipe(method: str, **settings: Any) -> Recipe:
    quantize = QuantizationSettings.model_validate({"method": method} | settings)
    return Recipe(device="test", quantize=quantize, calibration=CALIBRATION)


# Two recipes that take half a second each, for what does not depend on what is quantized, and how.
QUICK = make_recipe("rtn", components=["text_encoder"])
QUICK_INT8 = make_recipe("rtn", components=["text_encoder"], embeddings="int8")


@pytest.fixture(scope="module")
def results(lean: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, QuantizeResult]:
    """The tiny pipeline, quantized with each method."""
    folder = tmp_path_factory.mktemp("quantized")
    return {method: quantize_pipeline(make_recipe(method), lean, folder / method) for method in METHODS}


def encode(folder: Path) -> Tensor:
    """The hidden states that the pipeline uses, for two prompts of which one is padded."""
    from transformers import Qwen3Model

    model = Qwen3Model.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(48).reshape(2, 24)
    mask = torch.arange(24) < torch.tensor([[24], [9]])
    with torch.no_grad():
        states: Tensor = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
    return states[mask]


def hash_folder(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("method", METHODS)
def test_from_pretrained_of_diffusers_gives_a_working_pipeline(
    lean: Path, results: dict[str, QuantizeResult], method: str
) -> None:
    from diffusers import ZImagePipeline

    pipeline = ZImagePipeline.from_pretrained(results[method].model)
    pipeline.set_progress_bar_config(disable=True)
    prompts, sampling = load_prompts(lean / "prompts" / "evaluation.jsonl"), resolve_sampling(CALIBRATION, lean)
    variant = np.asarray(generate_images(pipeline, prompts, sampling)[0], np.float64)
    reference = np.asarray(generate_images(load_pipeline(lean, torch.float32), prompts, sampling)[0], np.float64)
    assert variant.std() > 1
    assert not np.array_equal(variant, reference), "nothing was quantized"
    assert np.abs(variant - reference).mean() < 12, "the quantized pipeline generates something else"


def test_the_stored_weights_are_within_half_a_step_of_the_original(
    lean: Path, results: dict[str, QuantizeResult]
) -> None:
    """RTN folds nothing, so each weight must be within half a step of the original."""
    original = load_file(lean / "transformer" / "diffusion_pytorch_model.safetensors")
    stored = load_file(results["rtn"].model / "transformer" / "diffusion_pytorch_model.safetensors")
    name = "layers.0.feed_forward.w2"
    packed = AwqTensors(*(stored[f"{name}.{kind}"] for kind in AwqTensors._fields))
    error = (dequantize(unpack_awq(packed)) - original[f"{name}.weight"]).abs()
    steps = packed.scales.T.float().repeat_interleave(128, dim=1)
    assert (error <= steps * 0.51).all(), f"off by {(error / steps).max():.3f} steps"
    assert f"{name}.weight" not in stored


def test_awq_loses_less_than_rounding(results: dict[str, QuantizeResult]) -> None:
    layers = results["awq"].manifest.layers
    assert len(layers) == 3 * 7
    assert np.mean([layer["error"] for layer in layers]) < np.mean([layer["rtn_error"] for layer in layers])
    assert all(layer["error"] < 0.05 for layer in layers)


def test_rtn_reports_its_own_error_as_the_rtn_error(results: dict[str, QuantizeResult]) -> None:
    assert all(layer["error"] == pytest.approx(layer["rtn_error"]) for layer in results["rtn"].manifest.layers)


def test_no_layer_of_best_is_worse_than_rounding(
    results: dict[str, QuantizeResult],
) -> None:
    """Errors of `best` give large tokens less weight, and so are a little different from rounding's."""
    layers = results["best"].manifest.layers
    rounded = {layer["layer"]: layer["error"] for layer in results["rtn"].manifest.layers}
    assert {layer["layer"] for layer in layers} == rounded.keys()
    for layer in layers:
        assert list(layer["steps"]) == ["rtn", "choose"]
        errors = list(layer["steps"].values())
        assert errors == sorted(errors, reverse=True), layer
        assert layer["rtn_error"] == errors[0] == pytest.approx(rounded[layer["layer"]], rel=0.05)
        assert layer["error"] == errors[-1]


def test_best_loses_less_than_awq_and_awq_less_than_rounding(results: dict[str, QuantizeResult]) -> None:
    mean = {method: np.mean([layer.error for layer in result.layers()]) for method, result in results.items()}
    assert mean["best"] < 0.8 * mean["awq"] < 0.8 * mean["rtn"]


def test_the_rtn_error_is_the_same_for_every_method(results: dict[str, QuantizeResult]) -> None:
    """What rounding would have cost does not depend on what was done instead."""
    rounded = {layer["layer"]: layer["error"] for layer in results["rtn"].manifest.layers}
    reported = {layer["layer"]: layer["rtn_error"] for layer in results["awq"].manifest.layers}
    assert reported == pytest.approx(rounded, rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_needs_the_same_bytes(results: dict[str, QuantizeResult], method: str) -> None:
    manifest, rounded = results[method].manifest, results["rtn"].manifest
    assert manifest.size_savings == rounded.size_savings
    files, expected = (
        {
            file.path: file.bytes
            for file in manifest.files
            if ".safetensors" in file.path and "/lora/" not in file.path  # what adapters undo, where inputs are scaled
        }
        for manifest in (manifest, rounded)
    )
    assert files == expected


def test_unquantized_tensors_keep_their_bits(lean: Path, results: dict[str, QuantizeResult]) -> None:
    output = results["rtn"].model
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert hash_file(lean / vae) == hash_file(output / vae)
    before = load_file(lean / "text_encoder" / "model.safetensors")
    after = load_file(output / "text_encoder" / "model.safetensors")
    for name in ("embed_tokens.weight", "layers.1.input_layernorm.weight", "norm.weight"):
        assert torch.equal(before[name], after[name]), name


def test_unused_blocks_are_removed_without_changing_the_output(
    lean: Path, results: dict[str, QuantizeResult], tmp_path: Path
) -> None:
    """Compared with a copy of the quantized text encoder that has its last layer, in full precision."""
    stored, whole = results["best"].model / "text_encoder", tmp_path / "whole"
    shutil.copytree(stored, whole)
    layer = {
        name: tensor
        for name, tensor in load_file(lean / "text_encoder" / "model.safetensors").items()
        if "s.2." in name
    }
    assert len(layer) > 7
    with edit_weights(whole) as tensors:
        assert not layer.keys() & tensors.keys()
        tensors.update(layer)
    config = json.loads((whole / "config.json").read_text())
    section = config["quantization_config"]
    assert section.pop("unused_blocks") == ["layers.2"]
    linears = [name.removesuffix(".weight") for name, tensor in layer.items() if tensor.ndim == 2]
    assert not set(linears) & set(section["modules_to_not_convert"])
    section["modules_to_not_convert"] += linears
    (whole / "config.json").write_text(json.dumps(config))
    assert torch.equal(encode(stored), encode(whole))


def test_the_encoder_of_the_vae_can_be_removed(lean: Path, tmp_path: Path) -> None:
    result = quantize_pipeline(make_recipe("rtn", components=["vae"]), lean, tmp_path / "artifact")
    prompts, sampling = load_prompts(lean / "prompts" / "evaluation.jsonl")[:1], resolve_sampling(CALIBRATION, lean)
    with_encoder, without = (load_pipeline(folder, torch.float32) for folder in (lean, result.model))
    image, expected = (
        np.asarray(generate_images(pipeline, prompts, sampling)[0]) for pipeline in (without, with_encoder)
    )
    assert np.array_equal(image, expected)
    stored = load_file(lean / "vae" / "diffusion_pytorch_model.safetensors")
    removed = sum(tensor.nbytes for name, tensor in stored.items() if name.startswith("encoder."))
    assert result.manifest.size_savings["vae"]["unused modules"] == removed > 0
    size = result.manifest.sizes["vae"]
    assert size["before"] - size["after"] > 0.95 * removed
    with pytest.raises(NotImplementedError, match="removed during quantization"):
        without.vae.encode(torch.zeros(1, 3, 16, 16))


def test_a_vae_alone_needs_no_calibration(lean: Path, tmp_path: Path) -> None:
    result = quantize_pipeline(make_recipe("best", components=["vae"]), lean, tmp_path / "artifact")
    assert "calibrating on prompts" not in result.seconds
    assert result.manifest.layers == []


def test_the_manifest_describes_the_artifact(lean: Path, results: dict[str, QuantizeResult]) -> None:
    artifact = results["awq"].output
    manifest = read_manifest(artifact)
    assert manifest is not None
    for files, root in ((manifest.sources, lean), (manifest.files, artifact / "model")):
        on_disk = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
        assert {file.path for file in files} == on_disk
        assert all(file.sha256 == hash_file(root / file.path) for file in files)
    sizes = manifest.sizes["transformer"]
    weights = sum(layer["weights"] for layer in manifest.layers if layer["layer"].startswith("transformer."))
    assert 3.4 < (sizes["before"] - sizes["after"]) / weights < 3.5  # bytes; of 4, half of one stays, and scales
    assert manifest.fp16_overflows == []
    for name in ("manifest.json", "SHA256SUMS"):
        assert str(lean.parent) not in (artifact / name).read_text()
    assert find_source(Artifact(artifact)) == lean.resolve()
    assert verify(artifact).passed
    timings = json.loads((artifact / "timings.json").read_text())
    assert timings == results["awq"].seconds
    assert {"calibrating on prompts", "calibrating on images", "quantizing"} <= timings.keys()


def test_the_configs_have_autoawqs_keys(results: dict[str, QuantizeResult]) -> None:
    for component in ("transformer", "text_encoder"):
        config = json.loads((results["awq"].model / component / "config.json").read_text())
        section = config["quantization_config"]
        expected = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
        assert {key: section[key] for key in expected} == expected
        assert section["modules_to_not_convert"]


def test_quantizing_again_does_nothing_and_another_recipe_is_rejected(lean: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    assert quantize_pipeline(QUICK, lean, output).created
    assert not quantize_pipeline(QUICK, lean, output).created
    with pytest.raises(UserError, match="--force"):
        quantize_pipeline(QUICK_INT8, lean, output)
    assert quantize_pipeline(QUICK_INT8, lean, output, force=True).created
    assert not list(output.glob(".work/*/")), "unfinished work was left"


def test_force_removes_what_was_exported_from_the_model_that_is_replaced(
    lean: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    artifact = Artifact(tmp_path / "artifact")
    manifest = quantize_pipeline(QUICK, lean, artifact.path).manifest
    artifact.onnx.mkdir()
    graphs = {"vae_decoder": GraphConfig(file="vae_decoder.onnx")}
    digest = digest_files(manifest.files)
    config = OnnxPipelineConfig(family="ZImagePipeline", graphs=graphs, host={}, model_sha256=digest)
    write_config(config, artifact.onnx)
    quantize_pipeline(QUICK, lean, artifact.path, restart=True)  # the same bytes again
    assert artifact.has_onnx
    assert "Removed" not in caplog.text
    quantize_pipeline(QUICK_INT8, lean, artifact.path, force=True)
    assert not artifact.onnx.exists()
    assert f"Removed {artifact.onnx}, which was exported from the model that was replaced." in caplog.text
    assert verify(artifact.path).passed


def test_a_changed_weight_file_is_noticed(lean: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "pipeline", tmp_path / "artifact"
    shutil.copytree(lean, source)
    first = quantize_pipeline(QUICK, source, output)
    file = source / "vae" / "config.json"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(UserError, match="was made from another recipe, prompt set, model"):
        quantize_pipeline(QUICK, source, output)
    assert quantize_pipeline(QUICK, source, output, force=True).manifest.key != first.manifest.key


def test_a_reference_that_overflows_is_rejected_each_time(lean: Path, tmp_path: Path) -> None:
    """Infinite activations from finite weights: an error at once, never stored, and again an error in the next run."""
    source, output = tmp_path / "pipeline", tmp_path / "artifact"
    shutil.copytree(lean, source)
    file = source / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["layers.0.feed_forward.w1.weight"] *= 1e25
    weights["layers.0.feed_forward.w3.weight"] *= 1e25
    save_file(weights, file)
    for _ in range(2):
        with pytest.raises(UserError, match="NaN or infinite activations"):
            quantize_pipeline(make_recipe("rtn"), source, output)
    assert not (output / "model").exists()


def test_an_output_inside_the_model_folder_is_rejected(lean: Path) -> None:
    with pytest.raises(UserError, match="is inside the model folder"):
        quantize_pipeline(make_recipe("rtn"), lean, lean / "quantized")


@pytest.mark.parametrize("force", [False, True])
def test_a_model_in_the_place_of_the_result_is_refused_and_stays(
    lean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    monkeypatch.setattr(run_module, "check_finite_weights", lambda *_: pytest.fail("weights are read"))
    model = tmp_path / "own" / "model"
    shutil.copytree(lean, model)
    before = hash_folder(tmp_path)
    with pytest.raises(UserError, match=r"in the place of the result.*another --output"):
        quantize_pipeline(make_recipe("rtn"), model, model.parent, force=force)
    with pytest.raises(UserError, match=r"model was not made by edgepress, because .*manifest\.json is missing"):
        quantize_pipeline(make_recipe("rtn"), lean, model.parent, force=force)
    assert hash_folder(tmp_path) == before


def test_a_layer_of_zeros_has_no_error(lean: Path, tmp_path: Path) -> None:
    source = tmp_path / "pipeline"
    shutil.copytree(lean, source)
    with edit_weights(source / "text_encoder") as weights:
        weights["layers.0.self_attn.v_proj.weight"].zero_()
    recipe = make_recipe("awq", components=["text_encoder"])
    layers = quantize_pipeline(recipe, source, tmp_path / "artifact").manifest.layers
    assert next(layer for layer in layers if layer["layer"].endswith("layers.0.self_attn.v_proj"))["error"] == 0


# ---------------------------------------------------------------- as it is published


@pytest.mark.parametrize("head", [False, True])
def test_a_text_encoder_stored_as_a_causal_model_gives_the_same_artifact(
    lean: Path, results: dict[str, QuantizeResult], tmp_path: Path, head: bool
) -> None:
    source = tmp_path / "published"
    shutil.copytree(lean, source)
    store_as_published(source, head)
    result = quantize_pipeline(make_recipe("awq"), source, tmp_path / "artifact")
    model, expected = result.model, results["awq"].model
    for component, file in (("text_encoder", "model"), ("transformer", "diffusion_pytorch_model")):
        path = f"{component}/{file}.safetensors"
        assert hash_file(model / path) == hash_file(expected / path), path
    assert torch.equal(encode(model / "text_encoder"), encode(expected / "text_encoder"))
    prompts, sampling = load_prompts(lean / "prompts" / "evaluation.jsonl")[:1], resolve_sampling(CALIBRATION, lean)
    images = [
        np.asarray(generate_images(load_pipeline(folder, torch.float32), prompts, sampling)[0])
        for folder in (model, expected)
    ]
    assert np.array_equal(*images)


# ---------------------------------------------------------------- same bytes, bounded memory


@pytest.mark.slow
def test_the_same_bytes_whatever_the_number_of_threads(
    lean: Path, results: dict[str, QuantizeResult], tmp_path: Path
) -> None:
    """`results` were made with the threads of this process."""
    file = tmp_path / "recipe.yaml"
    file.write_text("device: test\nquantize: {method: best}\ncalibration: {count: 2, steps: 2}\n")
    arguments = ["quantize", "--recipe", file, "--model", lean, "--output", tmp_path / "artifact"]
    threads = 2 if torch.get_num_threads() == 1 else 1
    done = run_command(*arguments, before=partial(torch.set_num_threads, threads))
    assert done.returncode == 0, done.stderr
    assert hash_folder(tmp_path / "artifact" / "model") == hash_folder(results["best"].model)


@pytest.mark.slow
def test_the_same_bytes_in_bfloat16_whatever_the_number_of_threads(lean: Path, tmp_path: Path) -> None:
    """Processors without instructions for bfloat16 take long for wide layers; their parts have tests of their own."""
    quantize = "{method: gptq, embeddings: int8, components: [text_encoder]}"
    file = tmp_path / "recipe.yaml"
    file.write_text(f"device: test\ndtype: bfloat16\nquantize: {quantize}\ncalibration: {{count: 2, steps: 2}}\n")
    for threads in (1, 2):
        arguments = ["quantize", "--recipe", file, "--model", lean, "--output", tmp_path / str(threads)]
        done = run_command(*arguments, before=partial(torch.set_num_threads, threads))
        assert done.returncode == 0, done.stderr
    first, second = (hash_folder(tmp_path / str(threads) / "model") for threads in (1, 2))
    assert first == second


def test_a_result_prints_a_summary(results: dict[str, QuantizeResult]) -> None:
    result = results["awq"]
    lines = str(result).splitlines()
    assert lines[0] == str(result.model)
    assert [line.split()[0] for line in lines[1:]] == ["size", "linears", "error", "unquantized", "time"]
    assert "21 quantized" in lines[2]
    assert str(replace(result, created=False)).endswith("already up to date")


def test_the_steps_of_a_method_are_part_of_the_key(lean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe("awq", components=["text_encoder"])
    quantize_pipeline(recipe, lean, tmp_path / "artifact")
    monkeypatch.setitem(recipes.METHOD_STEPS, "awq", ())
    with pytest.raises(UserError, match="--force"):
        quantize_pipeline(recipe, lean, tmp_path / "artifact")


def test_an_artifact_without_one_of_its_files_is_not_up_to_date(lean: Path, tmp_path: Path) -> None:
    output = tmp_path / "artifact"
    quantize_pipeline(QUICK, lean, output)
    file = output / "model" / "text_encoder" / "model.safetensors"
    file.unlink()
    with pytest.raises(UserError, match=r"model\.safetensors is missing\. .*--force"):
        quantize_pipeline(QUICK, lean, output)
    assert quantize_pipeline(QUICK, lean, output, force=True).created
    assert file.exists()


def test_files_have_the_permissions_of_the_umask(results: dict[str, QuantizeResult]) -> None:
    modes = {path.suffix: path.stat().st_mode & 0o777 for path in (results["rtn"].model).rglob("*.*")}
    assert modes[".safetensors"] == modes[".json"]


MISMATCHES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a missing component": ("model_index.json", {"transformer": None}, "does not list the component 'transformer'"),
    "more layers": ("transformer/config.json", {"n_layers": 9}, "Weight 'layers.*required by config.json, is missing"),
    "another width": ("transformer/config.json", {"cap_feat_dim": 64}, "has shape"),
    "an impossible config": ("transformer/config.json", {"axes_dims": [2, 2, 2]}, "does not describe a ZImageTransf"),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_weights_and_config_of_different_models_are_rejected(name: str, lean: Path, tmp_path: Path) -> None:
    file, change, message = MISMATCHES[name]
    source = tmp_path / "pipeline"
    shutil.copytree(lean, source)
    content = json.loads((source / file).read_text())
    (source / file).write_text(json.dumps(content | change))
    with pytest.raises(UserError, match=message):
        quantize_pipeline(make_recipe("rtn"), source, tmp_path / "artifact")
    assert not (tmp_path / "artifact" / "model").exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_layers(tmp_path: Path) -> None:
    """Blocks of 7 MB: 7 of them, then 23; with fewer the heap has not reached its full size, which varies by 20 MB."""
    recipe = tmp_path / "recipe.yaml"
    content = {"device": "test", "dtype": "float32", "quantize": {"method": "gptq", "components": ["transformer"]}}
    recipe.write_text(json.dumps(content | {"calibration": {"count": 1, "steps": 1}}))
    peaks, weights = [], []
    for layers in (5, 21):
        source, output, peak = (tmp_path / f"{name}-{layers}" for name in ("pipeline", "artifact", "peak"))
        write_tiny_pipeline(source, layers=layers)
        arguments = ["--recipe", recipe, "--model", source, "--output", output, "--max-memory", "1KB"]
        done = run_command("quantize", *arguments, before=partial(quantize_as_a_large_model, peak))
        assert done.returncode == 0, done.stderr
        peaks.append(int(peak.read_text()))
        weights.append(sum(file.stat().st_size for file in (source / "transformer").glob("*.safetensors")))
    growth = weights[1] - weights[0]
    assert growth > 100e6
    assert peaks[1] - peaks[0] < 0.4 * growth, f"{peaks[0] / 1e6:.0f} MB, then {peaks[1] / 1e6:.0f} MB"


# ---------------------------------------------------------------- known before any weight is read


def remove_tokenizer(source: Path, _: Path) -> None:
    shutil.rmtree(source / "tokenizer")


def remove_scheduler(source: Path, _: Path) -> None:
    (source / "scheduler" / "scheduler_config.json").unlink()


def block_output(_: Path, output: Path) -> None:
    output.write_text("a file")


@pytest.mark.parametrize(
    ("spoil", "settings", "message"),
    [
        (remove_tokenizer, {}, "There is no folder .*tokenizer"),
        (remove_scheduler, {}, r"scheduler_config\.json is missing"),
        (block_output, {}, r"artifact is not a folder, so .*output folder"),
        (None, {"size": [2048, 64]}, "the model's position tables end at 1024x1024"),
        (None, {"size": [60, 64]}, "Invalid image size 60x64"),
    ],
)
def test_what_configs_and_rights_tell_is_known_before_weights_are_read(
    lean: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path, Path], None] | None,
    settings: dict[str, Any],
    message: str,
) -> None:
    source, output = tmp_path / "pipeline", tmp_path / "artifact"
    shutil.copytree(lean, source)
    if spoil:
        spoil(source, output)
    monkeypatch.setattr(run_module, "check_finite_weights", lambda *_: pytest.fail("weights are read"))
    recipe = Recipe.model_validate({"device": "test", "calibration": {"count": 1, "steps": 1, **settings}})
    with pytest.raises(UserError, match=message):
        quantize_pipeline(recipe, source, output)
    assert not output.is_dir()


@pytest.mark.parametrize(
    ("section", "settings", "problem"),
    [
        (
            "export",
            {"sizes": [[64, 64], [70, 64]]},
            r"^export\.sizes = \[\[64, 64\], \[70, 64\]\]: Invalid image size 70x64",
        ),
        (
            "evaluation",
            {"size": [2048, 64]},
            r"^evaluation\.size = \[2048, 64\]: Invalid image size 2048x64: the model's position tables",
        ),
        (
            "evaluation",
            {"prompts": "signs.jsonl"},
            r"^evaluation\.prompts = 'signs\.jsonl': There is no prompt set or file 'signs\.jsonl'",
        ),
        ("evaluation", {"prompts": "broken.jsonl"}, r"^evaluation\.prompts = 'broken\.jsonl': .*broken\.jsonl:2: "),
    ],
)
def test_what_later_stages_cannot_do_is_known_before_weights_are_read(
    section: str,
    settings: dict[str, Any],
    problem: str,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.jsonl").write_text('{"id": "a", "text": "a wall"}\n{"id": "b"\n', "utf-8")
    recipe = Recipe.model_validate({"device": "test", "model": str(tiny), section: settings})
    with pytest.raises(UserError, match=problem):
        quantize_pipeline(recipe, tiny, tmp_path / "artifact")
    assert not (tmp_path / "artifact").exists()


def test_a_disk_without_room_is_known_before_weights_are_read(
    lean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "check_finite_weights", lambda *_: pytest.fail("weights are read"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10**9, free=1000))
    with pytest.raises(UserError, match=r"artifact needs at least \d\.\d MB, but its disk has 0\.0 MB free"):
        quantize_pipeline(make_recipe("rtn"), lean, tmp_path / "artifact")


@pytest.mark.parametrize("method", ["rtn", "best"])
def test_the_estimate_of_what_is_written_is_below_what_is_written(
    lean: Path, results: dict[str, QuantizeResult], method: str
) -> None:
    """The blocks count twice, as work and in the model."""
    plan = build_plan(lean, make_recipe(method).quantize)
    written = sum(file.bytes for file in results[method].manifest.files)
    assert written / 2 < estimate_output_bytes(plan, torch.float32) < 2 * written


def test_another_recipe_is_refused_before_weights_are_read(
    lean: Path, results: dict[str, QuantizeResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "check_finite_weights", lambda *_: pytest.fail("weights are read"))
    with pytest.raises(UserError, match=r"was made from another recipe.*--force"):
        quantize_pipeline(make_recipe("awq"), lean, results["rtn"].output)


def test_more_prompts_than_there_are_is_said(lean: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recipe = Recipe.model_validate(
        {
            "device": "test",
            "quantize": {"method": "rtn", "components": ["text_encoder"]},
            "calibration": {"count": 50, "steps": 1},
        }
    )
    quantize_pipeline(recipe, lean, tmp_path / "artifact")
    (message,) = caplog.messages
    assert re.fullmatch(r"calibration\.count asks for 50 prompts, but .*calibration\.jsonl has 3\. .*", message)
