"""What will be quantized, and the errors that come before any long work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.tiny import edit_weights, store_as_published
from helpers.tiny_families import FLUX, SD3, SDXL, write_tiny_family
from safetensors.torch import load_file, save_file

from edgepress.common.errors import UserError
from edgepress.pipelines.linear_selection import KeepReason
from edgepress.quantize.plan import build_plan, check_finite_weights
from edgepress.recipes.schema import QuantizationSettings, Scheme


@pytest.fixture
def pipeline(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline that a test may break."""
    shutil.copytree(tiny, tmp_path / "pipeline")
    return tmp_path / "pipeline"


def change_config(component: Path, **changes: object) -> None:
    config = component / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))


def test_every_block_is_planned_except_the_unused_layer(tiny: Path) -> None:
    names = [block.name for block in build_plan(tiny, QuantizationSettings()).blocks]
    paths = ["noise_refiner.0", "context_refiner.0", "layers.0"]
    assert names == ["text_encoder.layers.0", "text_encoder.layers.1", *(f"transformer.{path}" for path in paths)]


def test_unused_tensors_are_not_listed(tiny: Path) -> None:
    part = build_plan(tiny, QuantizationSettings()).get_component("text_encoder")
    assert part.unused_blocks == ("layers.2",)
    assert part.used_tensor_names == sorted(
        name for name in part.checkpoint.names() if not name.startswith("layers.2.")
    )
    assert build_plan(tiny, QuantizationSettings()).get_component("transformer").unused_blocks == ()


def test_components_that_only_run_are_planned_too(tiny: Path) -> None:
    plan = build_plan(tiny, QuantizationSettings(components=("text_encoder",)))
    assert [part.name for part in plan.components] == ["text_encoder"]
    assert [part.name for part in plan.unquantized_components] == ["transformer", "vae"]
    assert [block.path for block in plan.unquantized_components[0].blocks] == [
        "noise_refiner.0",
        "context_refiner.0",
        "layers.0",
    ]
    assert {block.component for block in plan.blocks} == {"text_encoder"}


def test_copies_of_a_block_are_in_the_order_of_their_numbers(pipeline: Path) -> None:
    with edit_weights(pipeline / "text_encoder") as tensors:
        layer = {name: tensor for name, tensor in tensors.items() if name.startswith("layers.1.")}
        for number in range(3, 12):
            tensors.update({name.replace(".1.", f".{number}.", 1): tensor.clone() for name, tensor in layer.items()})
    change_config(pipeline / "text_encoder", num_hidden_layers=12, layer_types=None)
    part = build_plan(pipeline, QuantizationSettings(components=("text_encoder",))).get_component("text_encoder")
    assert [block.path for block in part.blocks] == [f"layers.{number}" for number in range(11)]
    assert part.unused_blocks == ("layers.11",)


def test_too_few_blocks_are_rejected(pipeline: Path) -> None:
    """A single layer, which is the unused one."""
    with edit_weights(pipeline / "text_encoder") as tensors:
        for name in [name for name in tensors if name.startswith(("layers.1.", "layers.2."))]:
            del tensors[name]
    change_config(pipeline / "text_encoder", num_hidden_layers=1, layer_types=None)
    with pytest.raises(UserError, match=r"text_encoder has too few of the blocks layers\.\*"):
        build_plan(pipeline, QuantizationSettings())


@pytest.mark.parametrize("head", [False, True])
def test_a_text_encoder_stored_as_a_causal_model_is_planned_as_the_plain_one(
    tiny: Path, pipeline: Path, head: bool
) -> None:
    store_as_published(pipeline, head)
    folders = (tiny, pipeline)
    plain, causal = (build_plan(folder, QuantizationSettings()).get_component("text_encoder") for folder in folders)
    assert causal.used_tensor_names == plain.used_tensor_names
    assert causal.blocks == plain.blocks
    assert causal.config["architectures"] == plain.config["architectures"]
    name = "layers.0.mlp.up_proj.weight"
    assert torch.equal(causal.checkpoint.load_tensor(name), plain.checkpoint.load_tensor(name))


def test_all_seven_linears_of_a_block_are_quantized(tiny: Path) -> None:
    block = build_plan(tiny, QuantizationSettings(components=("transformer",))).blocks[2]
    assert len(block.linears) == 7
    assert "layers.0.attention.to_out.0" in block.linears


def test_widths_that_the_group_does_not_divide_are_planned_all_the_same(pipeline: Path) -> None:
    """Inputs of 192 take groups of 64; those of 100 stay in floats, and so does what folds into them."""
    with edit_weights(pipeline / "text_encoder") as tensors:
        for name in [name for name in tensors if ".mlp." in name]:
            columns = slice(192) if "down_proj" in name else slice(None)
            rows = slice(None) if "down_proj" in name else slice(192)
            tensors[name] = tensors[name][rows, columns].contiguous()
    change_config(pipeline / "text_encoder", intermediate_size=192)
    block = build_plan(pipeline, QuantizationSettings(extra_schemes={"board": Scheme()})).blocks[0]
    assert "layers.0.mlp.down_proj" in block.linears
    assert Scheme().resolve_group_size(192) == 64
    with edit_weights(pipeline / "text_encoder") as tensors:
        for name in [name for name in tensors if ".mlp." in name]:
            columns = slice(100) if "down_proj" in name else slice(None)
            rows = slice(None) if "down_proj" in name else slice(100)
            tensors[name] = tensors[name][rows, columns].contiguous()
    change_config(pipeline / "text_encoder", intermediate_size=100)
    part = build_plan(pipeline, QuantizationSettings()).get_component("text_encoder")
    names = {f"layers.0.mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")}
    assert not names & set(part.blocks[0].linears)
    assert {part.kept_linears[name] for name in names} == {KeepReason.WIDTH}
    assert [fold.prev_op for fold in part.blocks[0].spec.folds] == ["input_layernorm", "self_attn.v_proj"]


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "NaN"), (float("inf"), "infinite")])
def test_weights_that_are_not_finite_are_named(pipeline: Path, value: float, message: str) -> None:
    file = pipeline / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    weights["layers.1.mlp.up_proj.weight"][3, 4] = value
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UserError, match=rf"layers\.1\.mlp\.up_proj\.weight.*{message}"):
        check_finite_weights(pipeline, torch.float32)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (
            {"_class_name": "DreamPipeline", "_diffusers_version": "0.99.0"},
            r"'DreamPipeline', which diffusers \d+\.\S* does not have; the pipeline was saved with diffusers 0\.99",
        ),
        ({"_class_name": "WanPipeline"}, "is a WanPipeline, which does not make images from text alone"),
        *(
            ({"_class_name": name}, f"is a {name}, which does not make images from text alone")
            for name in ("ZImageImg2ImgPipeline", "ZImageInpaintPipeline", "FluxFillPipeline", "QwenImageEditPipeline")
        ),
        ({"_class_name": "DiTPipeline"}, "is a DiTPipeline, which does not make images from text alone"),
        ({"_class_name": "StableDiffusionPipeline"}, "lists no .vae., an AutoencoderKL that a StableDiffusionPipeline"),
    ],
)
def test_what_is_no_known_text_to_image_pipeline_is_rejected(
    pipeline: Path, index: dict[str, str], message: str
) -> None:
    (pipeline / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=message):
        build_plan(pipeline, QuantizationSettings())


@pytest.mark.parametrize("name", [FLUX, SD3, SDXL])
def test_all_denoisers_and_text_encoders_of_a_family_are_planned(name: str, tmp_path: Path) -> None:
    write_tiny_family(name, tmp_path)
    plan = build_plan(tmp_path, QuantizationSettings())
    encoders = {FLUX: 2, SD3: 3, SDXL: 2}[name]
    denoiser = "unet" if name == SDXL else "transformer"
    expected = ["text_encoder", *(f"text_encoder_{number}" for number in range(2, encoders + 1)), denoiser]
    assert [component.name for component in plan.components] == expected
    assert all(component.blocks for component in plan.components)
    assert [component.name for component in plan.unquantized_components] == ["vae"]
    folds = {
        component.name: {group.fold for block in component.blocks for group in block.groups} - {None}
        for component in plan.components
    }
    assert all(folds.values())


def test_a_component_that_a_pipeline_lacks_is_left_out(tmp_path: Path) -> None:
    write_tiny_family(SD3, tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text("utf-8"))
    index |= {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    names = [component.name for component in build_plan(tmp_path, QuantizationSettings()).components]
    assert names == ["text_encoder", "text_encoder_2", "transformer"]


def test_an_unknown_component_lists_the_known_ones(tiny: Path) -> None:
    with pytest.raises(UserError, match=r"no component 'vea'.*transformer"):
        build_plan(tiny, QuantizationSettings(components=("vea",)))


def test_another_component_class_is_rejected(pipeline: Path) -> None:
    config = pipeline / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "FluxTransformer2DModel"}))
    with pytest.raises(UserError, match="FluxTransformer2DModel"):
        build_plan(pipeline, QuantizationSettings())


def test_a_missing_weight_is_named(pipeline: Path) -> None:
    file = pipeline / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["layers.0.feed_forward.w2.weight"]
    save_file(weights, file)
    with pytest.raises(UserError, match=r"layers\.0\.feed_forward\.w2\.weight"):
        build_plan(pipeline, QuantizationSettings())


def test_a_quantized_pipeline_is_not_quantized_again(pipeline: Path) -> None:
    config = pipeline / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(UserError, match="already quantized"):
        build_plan(pipeline, QuantizationSettings())


def test_components_that_are_not_quantized_are_checked_too(pipeline: Path) -> None:
    file = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_in.bias"][0] = float("nan")
    save_file(weights, file)
    with pytest.raises(UserError, match=r"decoder\.conv_in\.bias.*NaN"):
        check_finite_weights(pipeline, torch.float32)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="corrupt or truncated"):
        build_plan(pipeline, QuantizationSettings())


def test_a_pickled_component_is_rejected(pipeline: Path) -> None:
    folder = pipeline / "vae"
    (folder / "diffusion_pytorch_model.safetensors").rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="safe_serialization=True"):
        build_plan(pipeline, QuantizationSettings())


def test_a_missing_norm_is_named(pipeline: Path) -> None:
    file = pipeline / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["layers.0.ffn_norm1.weight"]
    save_file(weights, file)
    with pytest.raises(UserError, match=r"layers\.0\.ffn_norm1\.weight"):
        build_plan(pipeline, QuantizationSettings())
