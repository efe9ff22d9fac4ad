"""What will be quantized, and the errors that come before any long work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgepress.errors import UserError
from edgepress.quantize.plan import make_plan
from edgepress.recipe import Quantization, Scheme


@pytest.fixture
def own(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline that a test may spoil."""
    shutil.copytree(tiny, tmp_path / "pipeline")
    return tmp_path / "pipeline"


def test_every_block_is_found_and_the_unread_layer_left_out(tiny: Path) -> None:
    units = [unit.name for unit in make_plan(tiny, Quantization()).units]
    blocks = ["noise_refiner.0", "context_refiner.0", "layers.0"]
    assert units == ["text_encoder.layers.0", "text_encoder.layers.1", *(f"transformer.{block}" for block in blocks)]


def test_all_seven_linears_of_a_block_are_quantized(tiny: Path) -> None:
    unit = make_plan(tiny, Quantization(components=("transformer",))).units[2]
    assert len(unit.linears) == 7
    assert "layers.0.attention.to_out.0" in unit.linears


def test_a_group_size_that_does_not_fit_names_the_layer(own: Path) -> None:
    weights = load_file(own / "transformer" / "diffusion_pytorch_model.safetensors")
    weights["layers.0.attention.to_q.weight"] = torch.zeros(384, 200)
    save_file(weights, own / "transformer" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError, match=r"128 does not divide the input width 200 of transformer\.layers\.0\."):
        make_plan(own, Quantization(scheme=Scheme(group_size=128)))


@pytest.mark.parametrize(("value", "words"), [(float("nan"), "NaN"), (float("inf"), "infinite")])
def test_unsound_weights_are_named(own: Path, value: float, words: str) -> None:
    file = own / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    weights["layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UserError, match=rf"layers\.1\.mlp\.up_proj\.weight .*{words}"):
        make_plan(own, Quantization())


def test_an_unknown_pipeline_class_lists_the_known_ones(own: Path) -> None:
    (own / "model_index.json").write_text(json.dumps({"_class_name": "DreamPipeline"}))
    with pytest.raises(UserError, match=r"'DreamPipeline' is unknown.*ZImagePipeline"):
        make_plan(own, Quantization())


def test_an_unknown_component_lists_the_known_ones(tiny: Path) -> None:
    with pytest.raises(UserError, match=r"no component 'vea'.*transformer"):
        make_plan(tiny, Quantization(components=("vea",)))


def test_another_component_class_is_refused(own: Path) -> None:
    config = own / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "FluxTransformer2DModel"}))
    with pytest.raises(UserError, match="FluxTransformer2DModel"):
        make_plan(own, Quantization())


def test_a_missing_weight_is_named(own: Path) -> None:
    file = own / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["layers.0.feed_forward.w2.weight"]
    save_file(weights, file)
    with pytest.raises(UserError, match=r"layers\.0\.feed_forward\.w2\.weight"):
        make_plan(own, Quantization())


def test_a_quantized_pipeline_is_not_quantized_again(own: Path) -> None:
    config = own / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(UserError, match="quantized already"):
        make_plan(own, Quantization())


def test_parts_that_are_not_pressed_are_looked_at_too(own: Path) -> None:
    file = own / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_in.bias"][0] = float("nan")
    save_file(weights, file)
    with pytest.raises(UserError, match=r"decoder\.conv_in\.bias .*NaN"):
        make_plan(own, Quantization())
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged or truncated"):
        make_plan(own, Quantization())


def test_a_pickled_part_is_refused(own: Path) -> None:
    folder = own / "vae"
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="safe_serialization=True"):
        make_plan(own, Quantization())


def test_a_missing_norm_is_named(own: Path) -> None:
    file = own / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["layers.0.ffn_norm1.weight"]
    save_file(weights, file)
    with pytest.raises(UserError, match=r"layers\.0\.ffn_norm1\.weight"):
        make_plan(own, Quantization())
