"""Names of kohya's files become paths in the models of diffusers, with the alphas of their layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgepress.common.errors import UserError
from edgepress.pipelines.lora_conversion import convert_lora

UNET = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
TEXT = "text_model.encoder.layers.0.self_attn.q_proj"
OUT = TEXT.replace("q_proj", "out_proj")  # diffusers recognizes the names of a text encoder by this layer
FILE = Path("style.safetensors")


def make_layer(name: str, alpha: float) -> dict[str, torch.Tensor]:
    return {
        f"{name}.lora_down.weight": torch.ones(2, 8),
        f"{name}.lora_up.weight": torch.ones(8, 2),
        f"{name}.alpha": torch.tensor(alpha),
    }


def test_alphas_beside_the_tensors_are_named_by_layer() -> None:
    tensors = make_layer(f"lora_unet_{UNET.replace('.', '_')}", 4.0)
    for number, path in enumerate((TEXT, OUT)):
        tensors |= make_layer(f"lora_te1_{path.replace('.', '_')}", 3.0 + number)
        tensors |= make_layer(f"lora_te2_{path.replace('.', '_')}", 2.0)
    converted = convert_lora(tensors, "StableDiffusionXLPipeline", {"layers_per_block": 2}, FILE)
    layers = {f"unet.{UNET}": 4.0, f"text_encoder.{TEXT}": 3.0, f"text_encoder.{OUT}": 4.0}
    layers |= {f"text_encoder_2.{path}": 2.0 for path in (TEXT, OUT)}
    assert converted.alphas == layers
    assert set(converted.tensors) == {f"{layer}.lora_{side}.weight" for layer in layers for side in "AB"}
    assert converted.lost == []


def test_every_lost_tensor_is_named() -> None:
    """The converter of this class keeps one of two forms of the U-Net's names, and drops the other in silence."""
    tensors = make_layer(f"lora_unet_{UNET.replace('.', '_')}", 4.0)
    tensors |= make_layer("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", 4.0)
    converted = convert_lora(tensors, "StableDiffusionXLPipeline", {"layers_per_block": 2}, FILE)
    assert converted.lost == [
        f"lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_{side}.weight" for side in ("down", "up")
    ]


def test_a_class_without_loras_and_a_foreign_file_are_sentences() -> None:
    tensors = make_layer("lora_unet_x", 1.0)
    with pytest.raises(UserError, match="diffusers reads no LoRA for a DiTPipeline"):
        convert_lora(tensors, "DiTPipeline", {}, FILE)
    with pytest.raises(UserError, match=r"cannot read style\.safetensors as a LoRA for a ZImagePipeline"):
        convert_lora(tensors | {"rest": torch.ones(2)}, "ZImagePipeline", {}, FILE)


def test_keys_that_a_converter_leaves_over_are_listed_and_blamed_on_no_other_base() -> None:
    tensors = make_layer("lora_unet_double_blocks_0_img_attn_proj", 4.0)
    for number in range(4):
        tensors |= make_layer(f"lora_unet_ghost_{number}", 4.0)
    message = (
        r"cannot read style\.safetensors as a LoRA for a FluxPipeline: these keys \(12 of 15\) have no layer there, "
        r"lora_unet_ghost_0\.alpha, .* and 7 more \('edgepress quantize --verbose' lists all\)\. Use a LoRA that"
    )
    with pytest.raises(UserError, match=message):
        convert_lora(tensors, "FluxPipeline", {"num_layers": 1, "num_single_layers": 0}, FILE)


@pytest.mark.parametrize(("base", "is_said"), [("FLUX.1", False), ("Z-Image", True)])
def test_the_base_of_a_lora_is_said_where_the_pipeline_has_another(base: str, is_said: bool) -> None:
    tensors = make_layer("lora_unet_single_transformer_blocks_0_attn_to_q", 4.0)
    with pytest.raises(UserError, match=r"these keys \(3 of 3\) have no layer there") as raised:
        convert_lora(tensors, "FluxPipeline", {"num_layers": 1, "num_single_layers": 1}, FILE, base)
    assert ("Its names are those of a LoRA for FLUX.1." in str(raised.value)) == is_said


@pytest.mark.parametrize("prefix", ["transformer.", "", "diffusion_model."])
@pytest.mark.parametrize("matrices", [("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora.down", "lora.up")])
@pytest.mark.parametrize(
    "pipeline_class",
    ["ZImagePipeline", "FluxPipeline", "StableDiffusion3Pipeline", "QwenImagePipeline", "Flux2KleinPipeline"],
)
def test_no_alpha_is_lost_in_mixed_conventions(pipeline_class: str, matrices: tuple[str, str], prefix: str) -> None:
    """PEFT's matrices with kohya's alphas: in the tensors, beside them, left over (which is refused), or an error."""
    path = f"{prefix}transformer_blocks.0.attn.to_q"
    tensors = {f"{path}.{matrices[0]}.weight": torch.ones(4, 8), f"{path}.{matrices[1]}.weight": torch.ones(8, 4)}
    alpha = {f"{path}.alpha": torch.tensor(2.0)}
    try:
        converted = convert_lora(tensors | alpha, pipeline_class, {"num_layers": 1, "num_single_layers": 0}, "file")
    except UserError:
        return
    factors = {name.split(".")[-2]: tensor for name, tensor in converted.tensors.items() if name.endswith(".weight")}
    is_applied = factors.keys() == {"lora_A", "lora_B"} and torch.equal(
        factors["lora_B"] @ factors["lora_A"], torch.full((8, 8), 2.0)
    )
    is_left = any(name.endswith(".alpha") for name in converted.tensors) or bool(converted.lost)
    assert is_applied or is_left or list(converted.alphas.values()) == [2.0]
