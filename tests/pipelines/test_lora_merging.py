"""LoRAs in the weights of a pipeline: the sum is right in every format, and no key is lost in silence."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.lora import (
    ATTENTION,
    FEED_FORWARD,
    Factors,
    load_weights,
    make_factors,
    merge,
    write_diffusers_lora,
    write_kohya_lora,
    write_peft_lora,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgepress.common.errors import UserError
from edgepress.pipelines.lora_files import LoraSpec, parse_lora
from edgepress.pipelines.lora_merging import merge_loras
from edgepress.storage.checkpoint import Checkpoint

ALPHA, SCALE = 1.0, 0.5  # alpha / rank
FORMATS: dict[str, Callable[[Path, Factors], Path]] = {
    "diffusers": lambda path, factors: write_diffusers_lora(path, factors, alpha=ALPHA),
    "peft": lambda path, factors: write_peft_lora(path.with_suffix(""), factors, ALPHA),
    "kohya": lambda path, factors: write_kohya_lora(path, factors, ALPHA),
}


def checkpoints(pipeline: Path) -> dict[str, Checkpoint]:
    return {name: Checkpoint(pipeline / name) for name in ("text_encoder", "transformer", "vae")}


def load_merged(pipeline: Path, component: str, path: str, *loras: str | Path) -> Tensor:
    specs = [parse_lora(str(lora)) for lora in loras]
    return merge_loras(specs, pipeline, checkpoints(pipeline))[component].load_tensor(f"{path}.weight")


@pytest.fixture
def factors(tiny: Path) -> Factors:
    return make_factors(tiny / "transformer", ATTENTION, "layers.0.attention.to_out.0", FEED_FORWARD)


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_adds_its_product(tiny: Path, tmp_path: Path, factors: Factors, kind: str) -> None:
    lora = FORMATS[kind](tmp_path / "style.safetensors", factors)
    merged = merge_loras([parse_lora(f"{lora}:0.8")], tiny, checkpoints(tiny))
    assert list(merged) == ["transformer"]
    for path in factors:
        expected = merge(tiny / "transformer", factors, path, 0.8 * SCALE)
        torch.testing.assert_close(
            merged["transformer"].load_tensor(f"{path}.weight").double(), expected, atol=1e-6, rtol=1e-6
        )
    untouched = "layers.0.attention.to_k.weight"
    assert torch.equal(merged["transformer"].load_tensor(untouched), load_weights(tiny / "transformer")[untouched])


def test_several_loras_are_added(tiny: Path, tmp_path: Path) -> None:
    first, second = (make_factors(tiny / "transformer", ATTENTION, seed=seed) for seed in (1, 2))
    loras = [
        write_diffusers_lora(tmp_path / "a.safetensors", first),
        f"{write_diffusers_lora(tmp_path / 'b.safetensors', second)}:-2",
    ]
    expected = merge(tiny / "transformer", first, ATTENTION, 1.0) - 2 * second[ATTENTION][1] @ second[ATTENTION][0]
    merged = load_merged(tiny, "transformer", ATTENTION, *loras)
    torch.testing.assert_close(merged.double(), expected, atol=1e-6, rtol=1e-6)


def test_a_text_encoder_gets_its_layers(tiny: Path, tmp_path: Path) -> None:
    path = "layers.0.mlp.up_proj"
    factors = make_factors(tiny / "text_encoder", path)
    expected = merge(tiny / "text_encoder", factors, path, 1.0)
    for lora in (
        write_diffusers_lora(tmp_path / "a.safetensors", factors, "text_encoder"),
        write_peft_lora(tmp_path / "b", factors, alpha=2.0),
    ):
        merged = load_merged(tiny, "text_encoder", path, lora)
        torch.testing.assert_close(merged.double(), expected, atol=1e-6, rtol=1e-6)


def test_biases_are_added_too(tiny: Path, tmp_path: Path) -> None:
    path = "layers.0.adaLN_modulation.0"
    lora = write_diffusers_lora(tmp_path / "a.safetensors", make_factors(tiny / "transformer", path), alpha=ALPHA)
    tensors = load_file(lora)
    bias = torch.arange(len(load_weights(tiny / "transformer")[f"{path}.bias"])).float()
    save_file(tensors | {f"transformer.{path}.lora_B.bias": bias}, lora)
    merged = merge_loras([LoraSpec(lora, 0.5)], tiny, checkpoints(tiny))["transformer"]
    expected = load_weights(tiny / "transformer")[f"{path}.bias"] + 0.5 * bias
    torch.testing.assert_close(merged.load_tensor(f"{path}.bias"), expected)


def test_a_joint_projection_of_kohya_is_split(tiny: Path, tmp_path: Path) -> None:
    width = load_weights(tiny / "transformer")[f"{ATTENTION}.weight"].shape[1]
    down, up = torch.randn(2, width), torch.randn(3 * width, 2)
    name = "lora_unet_layers_0_attention_qkv"
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, tmp_path / "a.safetensors")
    for number, part in enumerate(("to_q", "to_k", "to_v")):
        path = f"layers.0.attention.{part}"
        expected = load_weights(tiny / "transformer")[f"{path}.weight"] + up.chunk(3)[number] @ down
        torch.testing.assert_close(load_merged(tiny, "transformer", path, tmp_path / "a.safetensors"), expected)


def test_a_joint_projection_beside_its_parts_is_redundant(tiny: Path, tmp_path: Path) -> None:
    parts = [f"layers.0.attention.to_{part}" for part in "qkv"]
    lora = write_kohya_lora(tmp_path / "a.safetensors", make_factors(tiny / "transformer", *parts), ALPHA)
    joint = {f"lora_unet_layers_0_attention_qkv.lora_{kind}.weight": torch.ones(3, 3) for kind in ("down", "up")}
    save_file(load_file(lora) | joint, lora)
    load_merged(tiny, "transformer", ATTENTION, lora)


def test_the_stored_dtype_stays(tiny: Path, tmp_path: Path, factors: Factors) -> None:
    save_file(
        {name: tensor.bfloat16() for name, tensor in load_weights(tiny / "transformer").items()},
        tmp_path / "diffusion_pytorch_model.safetensors",
    )
    (tmp_path / "config.json").write_bytes((tiny / "transformer" / "config.json").read_bytes())
    lora = write_diffusers_lora(tmp_path / "a.safetensors", factors)
    merged = merge_loras([LoraSpec(lora)], tiny, {"transformer": Checkpoint(tmp_path)})["transformer"]
    stored = load_weights(tiny / "transformer")[f"{ATTENTION}.weight"].bfloat16().float()
    expected = (stored + factors[ATTENTION][1] @ factors[ATTENTION][0]).bfloat16()
    assert torch.equal(merged.load_tensor(f"{ATTENTION}.weight"), expected)
    assert not merged.is_plain, "a library would load other weights"


# ---------------------------------------------------------------- errors


def require_error(tiny: Path, lora: Path, message: str) -> None:
    with pytest.raises(UserError, match=message):
        merge_loras([parse_lora(str(lora))], tiny, checkpoints(tiny))


@pytest.mark.parametrize("kind", FORMATS)
def test_keys_without_a_layer_are_counted_and_listed(
    kind: str, tiny: Path, tmp_path: Path, factors: Factors, caplog: pytest.LogCaptureFixture
) -> None:
    down, up = factors[ATTENTION]
    unknown = {f"layers.{number}.attention.to_q": (down.clone(), up.clone()) for number in range(6, 10)}
    lora = FORMATS[kind](tmp_path / "style.safetensors", {**factors, **unknown})
    listed = r"transformer\.layers\.6\..* and 3 more \('edgepress quantize --verbose' lists all\)\."
    with caplog.at_level(logging.INFO, "edgepress"):
        require_error(tiny, lora, rf"8 keys of .* have no layer in .*: {listed}")
    names = {f"transformer.{path}.lora_{side}.weight" for path in unknown for side in "AB"}
    assert {record.getMessage().rpartition(" ")[2] for record in caplog.records} == names


def test_one_key_without_a_layer_is_singular(tiny: Path, tmp_path: Path, factors: Factors) -> None:
    lora = write_diffusers_lora(tmp_path / "a.safetensors", factors)
    stray = {"transformer.layers.9.attention.to_q.lora_A.weight": torch.ones(2, 2)}
    save_file(load_file(lora) | stray, lora)
    require_error(tiny, lora, r"1 key of .* has no layer in ")


@pytest.mark.parametrize("missing", ["A", "B"])
def test_half_of_a_layer_is_an_incomplete_file(missing: str, tiny: Path, tmp_path: Path, factors: Factors) -> None:
    lora = write_diffusers_lora(tmp_path / "a.safetensors", factors)
    tensors = load_file(lora)
    del tensors[f"transformer.{ATTENTION}.lora_{missing}.weight"]
    save_file(tensors, lora)
    require_error(tiny, lora, rf"but no lora_{missing}\.weight of that layer: it is incomplete\. Download it again")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_lora_for_another_family_is_one_sentence(tiny: Path, tmp_path: Path, kind: str) -> None:
    foreign = {"single_blocks.0.linear1": (torch.ones(2, 8), torch.ones(8, 2))}
    lora = FORMATS[kind](tmp_path / "a.safetensors", foreign)
    none = r"another base model, by its names FLUX\.1: none of its keys.*single[._]blocks"
    require_error(
        tiny, lora, rf"{none}|cannot read .* as a LoRA for a ZImagePipeline.*names are those .* FLUX\.1\. Use"
    )


def test_a_lora_of_which_some_layers_fit_looks_like_one_for_another_base_model(
    tiny: Path, tmp_path: Path, factors: Factors
) -> None:
    foreign = {
        f"single_transformer_blocks.{number}.attn.to_q": (torch.ones(2, 8), torch.ones(8, 2)) for number in range(2)
    }
    lora = write_diffusers_lora(tmp_path / "a.safetensors", {**factors, **foreign})
    require_error(tiny, lora, r"4 keys .* no layer .*single_trans.*\. It looks like .* another base .* FLUX\.1\. Use")
    deep = {f"layers.{number}.attention.to_q": (torch.ones(2, 8), torch.ones(8, 2)) for number in range(6, 16)}
    lora = write_diffusers_lora(tmp_path / "a.safetensors", {**factors, **deep})
    message = r"20 keys .* and 15 more \(.*\)\. It looks like .* since most of its layers are not there\. Use"
    require_error(tiny, lora, message)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_lora_for_another_size_is_one_sentence(tiny: Path, tmp_path: Path, kind: str) -> None:
    wide = {ATTENTION: (torch.ones(2, 3840), torch.ones(3840, 2))}
    lora = FORMATS[kind](tmp_path / "a.safetensors", wide)
    require_error(tiny, lora, r"another base model: .*to_q\.weight of shape \(3840, 3840\), .* has shape \(384, 384\)")


def test_what_diffusers_skips_in_silence_is_an_error(tiny: Path, tmp_path: Path, factors: Factors) -> None:
    """Its converter drops a joint projection that has no upper half."""
    lora = write_kohya_lora(tmp_path / "a.safetensors", factors, ALPHA)
    half = {"lora_unet_layers_0_attention_qkv.lora_down.weight": torch.ones(2, 384)}
    save_file(load_file(lora) | half, lora)
    require_error(tiny, lora, r"1 key of .*: lora_unet_layers_0_attention_qkv\.lora_down\.weight\.")


def test_a_file_of_peft_needs_its_config(tiny: Path, tmp_path: Path, factors: Factors) -> None:
    folder = write_peft_lora(tmp_path / "a", factors, ALPHA)
    (folder / "adapter_config.json").unlink()
    require_error(tiny, folder, r"adapter_config\.json, which holds its alpha, is not beside it")


def test_values_that_are_not_finite_are_named(tiny: Path, tmp_path: Path, factors: Factors) -> None:
    factors[ATTENTION][0][0, 0] = torch.nan
    require_error(tiny, write_diffusers_lora(tmp_path / "a.safetensors", factors), rf"NaN .* transformer\.{ATTENTION}")


def test_a_bias_where_the_model_has_none_is_named(tiny: Path, tmp_path: Path, factors: Factors) -> None:
    lora = write_diffusers_lora(tmp_path / "a.safetensors", factors)
    tensors = load_file(lora)
    tensors[f"transformer.{ATTENTION}.lora_B.bias"] = torch.ones(2)
    save_file(tensors, lora)
    require_error(tiny, lora, rf"has a bias for transformer\.{ATTENTION}, which has none")


def test_an_alpha_is_one_number(tiny: Path, tmp_path: Path, factors: Factors) -> None:
    lora = write_diffusers_lora(tmp_path / "a.safetensors", factors)
    save_file(load_file(lora) | {f"transformer.{ATTENTION}.alpha": torch.ones(2)}, lora)
    require_error(tiny, lora, rf"transformer\.{ATTENTION}\.alpha is 2 numbers instead of one")


def test_a_product_out_of_range_is_named_before_any_work(tiny: Path, tmp_path: Path) -> None:
    large = make_factors(tiny / "transformer", ATTENTION, size=1e30)
    lora = write_diffusers_lora(tmp_path / "a.safetensors", large)
    require_error(tiny, lora, rf"to transformer\.{ATTENTION}\.weight, which no model has\. Give it a smaller")


def test_a_weight_of_the_lora_counts_before_any_work(tiny: Path, tmp_path: Path, factors: Factors) -> None:
    lora = write_diffusers_lora(tmp_path / "a.safetensors", factors)
    with pytest.raises(UserError, match=r"adds values up to \S+e\+\d\d to .*, which no model has"):
        merge_loras([LoraSpec(lora, 1e30)], tiny, {"transformer": Checkpoint(tiny / "transformer")})


def test_matrices_of_different_ranks_are_named(tiny: Path, tmp_path: Path) -> None:
    width = Checkpoint(tiny / "transformer").shape(f"{ATTENTION}.weight")[0]
    lora = write_diffusers_lora(tmp_path / "a.safetensors", {ATTENTION: (torch.ones(4, width), torch.ones(width, 8))})
    require_error(tiny, lora, rf"is damaged: the matrices for transformer\.{ATTENTION}\.weight have the ranks 4 and 8")


def test_a_sum_out_of_range_is_named(tiny: Path, tmp_path: Path) -> None:
    names = {name: tensor.half() for name, tensor in load_weights(tiny / "transformer").items()}
    save_file(names, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_bytes((tiny / "transformer" / "config.json").read_bytes())
    large = make_factors(tiny / "transformer", ATTENTION, size=1e3)
    lora = write_diffusers_lora(tmp_path / "a.safetensors", large)
    merged = merge_loras([LoraSpec(lora)], tiny, {"transformer": Checkpoint(tmp_path)})["transformer"]
    with pytest.raises(UserError, match="exceeds the range of float16"):
        merged.load_tensor(f"{ATTENTION}.weight")
