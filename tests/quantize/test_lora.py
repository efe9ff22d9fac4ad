"""LoRAs in a quantized pipeline: merged before calibration, or as adapters beside the packed weights."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.lora import (
    ATTENTION,
    FEED_FORWARD,
    load_weights,
    make_factors,
    merge,
    write_diffusers_lora,
    write_peft_lora,
)
from torch import Tensor, nn

import edgepress
from edgepress.common.errors import UserError
from edgepress.numerics.affine import dequantize
from edgepress.numerics.awq_packing import AwqTensors, unpack_awq
from edgepress.pipelines.quantized_modules import Int4Linear
from edgepress.pipelines.sampling import load_pipeline
from edgepress.quantize.result import QuantizeResult
from edgepress.recipes.schema import Recipe

WEIGHT = 0.5
CONFIG = "transformer/config.json"
TEXT = "layers.0.mlp.up_proj"


def quantize(
    model: Path, output: Path, *loras: str | Path, method: str = "rtn", fp16_safe: bool = False, **options: Any
) -> QuantizeResult:
    """Quantizes the transformer, by default with rounding, which needs no calibration to be accurate."""
    recipe = Recipe.model_validate(
        {
            "device": "test",
            "quantize": {"method": method, "components": ["transformer"], "fp16_safe": fp16_safe},
            "calibration": {"count": 1, "steps": 1},
        }
    )
    return edgepress.quantize(recipe, model=model, output=output, loras=loras, **options)


@pytest.fixture(scope="module")
def lora(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the transformer and for the text encoder, which is not quantized."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("lora")
    file = write_diffusers_lora(
        folder / "style.safetensors", make_factors(tiny / "transformer", ATTENTION, FEED_FORWARD)
    )
    text = write_diffusers_lora(folder / "text.safetensors", make_factors(tiny / "text_encoder", TEXT), "text_encoder")
    save_file(load_file(file) | load_file(text), file)
    return file


@pytest.fixture(scope="module")
def merged(tiny: Path, lora: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    return quantize(tiny, tmp_path_factory.mktemp("merged") / "artifact", f"{lora}:{WEIGHT}")


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    return quantize(tiny, tmp_path_factory.mktemp("plain") / "artifact")


# ---------------------------------------------------------------- merged


def test_the_quantized_weights_are_those_of_the_sum(tiny: Path, merged: QuantizeResult) -> None:
    factors = make_factors(tiny / "transformer", ATTENTION, FEED_FORWARD)
    stored = load_weights(merged.model / "transformer")
    for path in factors:
        packed = AwqTensors(*(stored[f"{path}.{kind}"] for kind in AwqTensors._fields))
        error = (dequantize(unpack_awq(packed)) - merge(tiny / "transformer", factors, path, WEIGHT)).abs()
        steps = packed.scales.T.float().repeat_interleave(128, dim=1)
        assert (error <= steps * 0.51).all(), f"{path} is off by {(error / steps).max():.3f} steps"


def test_a_component_that_is_not_quantized_gets_the_sum_too(tiny: Path, merged: QuantizeResult) -> None:
    stored, original = load_weights(merged.model / "text_encoder"), load_weights(tiny / "text_encoder")
    expected = merge(tiny / "text_encoder", make_factors(tiny / "text_encoder", TEXT), TEXT, WEIGHT)
    torch.testing.assert_close(stored.pop(f"{TEXT}.weight").double(), expected, atol=1e-6, rtol=1e-6)
    assert all(torch.equal(tensor, original[name]) for name, tensor in stored.items())


def test_the_manifest_names_the_lora(lora: Path, merged: QuantizeResult, plain: QuantizeResult) -> None:
    (record,) = merged.manifest.loras
    assert (record.path, record.weight) == ("style.safetensors", WEIGHT)
    assert record.sha256 == hashlib.sha256(lora.read_bytes()).hexdigest()
    assert merged.manifest.recipe["loras"] == ["style.safetensors:0.5"]
    assert plain.manifest.loras == []
    assert merged.manifest.key != plain.manifest.key


def test_the_same_lora_is_up_to_date_and_another_weight_is_not(tiny: Path, lora: Path, merged: QuantizeResult) -> None:
    assert not quantize(tiny, merged.output, f"{lora}:{WEIGHT}").created
    for loras in ((), (lora,)):
        with pytest.raises(UserError, match="was made from another recipe"):
            quantize(tiny, merged.output, *loras)


def test_the_same_lora_is_not_merged_twice(tiny: Path, lora: Path, tmp_path: Path) -> None:
    shutil.copy(lora, tmp_path / "copy.safetensors")
    for again in (lora, tmp_path / "copy.safetensors"):
        with pytest.raises(UserError, match=r"given twice, .*style\.safetensors.*style\.safetensors:1\.5\.$"):
            quantize(tiny, tmp_path / "artifact", lora, f"{again}:0.5")


def test_a_wrong_lora_is_found_before_any_work(tiny: Path, tmp_path: Path) -> None:
    foreign = write_diffusers_lora(
        tmp_path / "foreign.safetensors", {ATTENTION: (torch.ones(1, 3840), torch.ones(3840, 1))}
    )
    with pytest.raises(UserError, match="another base model"):
        quantize(tiny, tmp_path / "artifact", foreign)
    assert not (tmp_path / "artifact").exists()


# ---------------------------------------------------------------- adapters


@pytest.fixture
def adapted(plain: QuantizeResult) -> Any:
    """A quantized pipeline to which adapters can be added."""
    pytest.importorskip("peft")
    return load_pipeline(plain.model, torch.float32)


def denoise(pipeline: Any) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    model = pipeline.transformer
    latents, text = (torch.randn(shape, generator=generator).to(model.dtype) for shape in ((16, 1, 8, 8), (7, 128)))
    with torch.no_grad():
        sample: Tensor = model([latents], torch.tensor([0.5], dtype=model.dtype), [text], return_dict=False)[0][0]
    return sample


def denoise_dense(pipeline: Any, *added: tuple[str, Tensor]) -> Tensor:
    """What dense layers with the dequantized weights and sums compute."""
    for name, module in list(pipeline.transformer.named_modules()):
        if isinstance(module, Int4Linear):
            dense = nn.Linear(module.in_features, module.out_features, bias=False)
            dense.weight.data = module.dequantize() + sum(update for path, update in added if path == name)
            pipeline.transformer.set_submodule(name, dense)
    return denoise(pipeline)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.5, 2.0)])
def test_adapters_add_their_products_with_their_weights(
    tiny: Path, tmp_path: Path, plain: QuantizeResult, adapted: Any, weights: tuple[float, float]
) -> None:
    paths = (ATTENTION, FEED_FORWARD)
    factors = {name: make_factors(tiny / "transformer", *paths, seed=seed) for seed, name in enumerate("ab")}
    for name, factor in factors.items():
        file = write_diffusers_lora(tmp_path / f"{name}.safetensors", factor, alpha=1.0)
        adapted.load_lora_weights(file, adapter_name=name)
    adapted.set_adapters(list(factors), list(weights))
    added = [
        (path, weight * 0.5 * up @ down)
        for weight, factor in zip(weights, factors.values(), strict=True)
        for path, (down, up) in factor.items()
    ]
    expected = denoise_dense(load_pipeline(plain.model, torch.float32), *added)
    torch.testing.assert_close(denoise(adapted), expected, atol=2e-4, rtol=1e-4)


OFF: dict[str, Callable[[Any], None]] = {
    "disable_lora": lambda pipeline: pipeline.disable_lora(),
    "unload_lora_weights": lambda pipeline: pipeline.unload_lora_weights(),
    "delete_adapters": lambda pipeline: pipeline.delete_adapters("style"),
}


@pytest.mark.parametrize("switch", OFF)
def test_without_adapters_the_output_is_equal_to_the_bit(lora: Path, adapted: Any, switch: str) -> None:
    before = denoise(adapted)
    adapted.load_lora_weights(lora, adapter_name="style")
    assert not torch.equal(denoise(adapted), before)
    OFF[switch](adapted)
    assert torch.equal(denoise(adapted), before)


def test_a_bfloat16_pipeline_computes_adapters_of_any_dtype(lora: Path, plain: QuantizeResult) -> None:
    pytest.importorskip("peft")
    pipeline = load_pipeline(plain.model, torch.bfloat16)
    pipeline.load_lora_weights(lora)
    adapted = denoise(pipeline)
    assert adapted.dtype == torch.bfloat16
    assert adapted.isfinite().all()


def test_adapters_cannot_be_merged_into_packed_weights(lora: Path, adapted: Any) -> None:
    adapted.load_lora_weights(lora)
    with pytest.raises(UserError, match=r"4-bit weights.*--lora"):
        adapted.fuse_lora()


@pytest.fixture(scope="module")
def scaled(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    """Some of its linears read inputs that were scaled."""
    return quantize(tiny, tmp_path_factory.mktemp("scaled") / "artifact", method="awq")


def test_without_the_scales_an_adapter_beside_a_scaled_layer_is_refused_and_leaves_nothing(
    lora: Path, scaled: QuantizeResult, tmp_path: Path
) -> None:
    """As in artifacts of earlier releases."""
    pytest.importorskip("peft")
    model = tmp_path / "model"
    shutil.copytree(scaled.model, model)
    shutil.rmtree(model / "transformer" / "lora")
    pipeline = load_pipeline(model, torch.float32)
    before = denoise(pipeline)
    with pytest.raises(UserError, match=r"layers\.\d+\..* has scaled.*no lora/scales.*Quantize again"):
        pipeline.load_lora_weights(lora, adapter_name="style")
    assert torch.equal(denoise(pipeline), before)
    assert "style" not in pipeline.get_active_adapters()


def test_the_layers_that_are_scaled_are_named(tiny: Path, scaled: QuantizeResult, plain: QuantizeResult) -> None:
    """Weights that were scaled are farther from the original than rounding takes them."""
    named, unnamed = (json.loads((result.model / CONFIG).read_text("utf-8")) for result in (scaled, plain))
    errors, rounding_errors = (measure_weights(tiny, result) for result in (scaled, plain))
    far = {name for name, error in errors.items() if error > 1.5 * rounding_errors[name]}
    assert far
    assert far <= set(named["quantization_config"]["rescaled_linears"])  # a scale may be near one
    assert "rescaled_linears" not in unnamed["quantization_config"]


def measure_weights(tiny: Path, result: QuantizeResult) -> dict[str, float]:
    """How far the dequantized weights of linears are from the original, relative to it."""
    original = load_pipeline(tiny, torch.float32).transformer
    errors = {}
    for name, module in load_pipeline(result.model, torch.float32).transformer.named_modules():
        if isinstance(module, Int4Linear):
            weight = original.get_submodule(name).weight.detach()
            errors[name] = float((module.dequantize() - weight).square().sum() / weight.square().sum())
    return errors


def test_a_text_encoder_takes_adapters_too(tiny: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    recipe = Recipe.model_validate(
        {
            "device": "test",
            "quantize": {"method": "rtn", "components": ["text_encoder"]},
            "calibration": {"count": 1, "steps": 1},
        }
    )
    encoder = load_pipeline(edgepress.quantize(recipe, model=tiny, output=tmp_path / "a").model, torch.float32)
    encoder = encoder.text_encoder
    x = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
    layer = encoder.get_submodule(TEXT)
    before = layer(x)
    encoder.add_adapter(peft.LoraConfig(r=2, target_modules=["up_proj"], init_lora_weights=False), "style")
    adapter = encoder.get_submodule(TEXT)
    up, down = adapter.lora_B["style"].weight, adapter.lora_A["style"].weight
    torch.testing.assert_close(adapter(x), before + adapter.scaling["style"] * x @ down.T @ up.T)
    encoder.disable_adapters()
    assert torch.equal(encoder.get_submodule(TEXT)(x), before)


def test_merging_is_what_peft_does(tiny: Path, tmp_path: Path) -> None:
    """`fuse_lora()` of the original pipeline gives the weights that are quantized."""
    pytest.importorskip("peft")
    from edgepress.pipelines.lora_files import parse_lora
    from edgepress.pipelines.lora_merging import merge_loras
    from edgepress.storage.checkpoint import Checkpoint

    factors = make_factors(tiny / "transformer", ATTENTION, FEED_FORWARD)
    file = write_diffusers_lora(tmp_path / "style.safetensors", factors, alpha=3.0)
    write_peft_lora(tmp_path / "peft", factors, alpha=3.0)
    pipeline = load_pipeline(tiny, torch.float32)
    pipeline.load_lora_weights(file)
    pipeline.fuse_lora(lora_scale=WEIGHT)
    pipeline.unload_lora_weights()
    for lora in (file, tmp_path / "peft"):
        checkpoint = Checkpoint(tiny / "transformer")
        ours = merge_loras([parse_lora(f"{lora}:{WEIGHT}")], tiny, {"transformer": checkpoint})["transformer"]
        for path in factors:
            fused = pipeline.transformer.get_submodule(path).weight.data
            torch.testing.assert_close(ours.load_tensor(f"{path}.weight"), fused, atol=1e-6, rtol=1e-6)
