"""Single files in place of a component: loaded alike under every naming, and refused by what their headers show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.single_files import read_component, use_original_names, write_gguf, write_safetensors
from torch import Tensor

from edgepress.benchmarks.synthetic.tiny_pipelines import write_tiny_pipeline
from edgepress.common.errors import UserError
from edgepress.models.single_file_layouts import find_layout
from edgepress.pipelines.component_files import ComponentFile, check_component_file, load_component_file


@pytest.fixture(scope="module")
def weights(reference: Path) -> dict[str, Tensor]:
    """The weights of the transformer."""
    return read_component(reference / "transformer")


def check(pipeline: Path, file: Path, component: str = "transformer") -> None:
    check_component_file(pipeline, ComponentFile(component, file))


@pytest.mark.parametrize("suffix", ["gguf", "safetensors"])
@pytest.mark.parametrize("naming", ["diffusers", "original", "prefixed"])
def test_every_naming_gives_the_weights_of_the_pipeline(
    suffix: str, naming: str, reference: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    tensors = weights if naming == "diffusers" else use_original_names(weights)
    if naming == "prefixed":
        tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in tensors.items()}
    file = (write_gguf if suffix == "gguf" else write_safetensors)(tensors, tmp_path / f"x.{suffix}")
    check(reference, file)
    state = load_component_file(reference, ComponentFile("transformer", file), torch.float32).state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name].float().reshape(weights[name].shape), weights[name]) for name in weights)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_original_names_of_a_unet_are_read_without_their_prefix_too(prefix: str, tmp_path: Path) -> None:
    write_tiny_pipeline("StableDiffusionXLPipeline", tmp_path / "source")
    tensors = read_component(tmp_path / "source" / "unet")
    layout = find_layout("UNet2DConditionModel", json.loads((tmp_path / "source" / "unet" / "config.json").read_text()))
    assert layout is not None
    named = {prefix + name: tensors[tensor.parts[0]] for name, tensor in layout.names.group(tensors).items()}
    file = write_gguf(named, tmp_path / "x.gguf", "sdxl")
    check(tmp_path / "source", file, "unet")
    state = load_component_file(tmp_path / "source", ComponentFile("unet", file), torch.float32).state_dict()
    assert all(torch.equal(state[name], tensors[name]) for name in tensors)


def test_a_text_encoder_is_replaced_as_well(reference: Path, tmp_path: Path) -> None:
    expected = read_component(reference / "text_encoder")
    file = write_safetensors({f"model.{name}": tensor for name, tensor in expected.items()}, tmp_path / "x.safetensors")
    check(reference, file, "text_encoder")
    state = load_component_file(reference, ComponentFile("text_encoder", file), torch.float32).state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_another_architecture_is_named(reference: Path, weights: dict[str, Tensor], tmp_path: Path) -> None:
    file = write_gguf(weights, tmp_path / "x.gguf", "flux")
    with pytest.raises(UserError, match=r"of the architecture 'flux', but the transformer of .* is 'lumina2'"):
        check(reference, file)


@pytest.mark.parametrize("suffix", ["gguf", "safetensors"])
def test_a_missing_tensor_is_named(suffix: str, reference: Path, weights: dict[str, Tensor], tmp_path: Path) -> None:
    tensors = use_original_names(weights)
    missing = [name for name in tensors if name.endswith("feed_forward.w2.weight")]
    remaining = {name: tensor for name, tensor in tensors.items() if name not in missing}
    file = (write_gguf if suffix == "gguf" else write_safetensors)(remaining, tmp_path / f"x.{suffix}")
    with pytest.raises(
        UserError, match=rf"'[a-z_.0-9]+w2\.weight' of the transformer is missing from .*, and {len(missing) - 1} more"
    ):
        check(reference, file)


def test_other_files_are_named(reference: Path, weights: dict[str, Tensor], tmp_path: Path) -> None:
    name = next(name for name in weights if name.endswith("to_q.weight"))
    narrow = write_safetensors(weights | {name: weights[name][:-1]}, tmp_path / "narrow.safetensors")
    with pytest.raises(
        UserError, match=rf"'{name}' in .* has shape \(383, 384\), but the transformer has \(384, 384\)"
    ):
        check(reference, narrow)
    foreign = write_safetensors({"unet.weight": torch.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match=r"holds no tensor of the transformer: .* such as 'unet\.weight'"):
        check(reference, foreign)
    packed = write_safetensors(weights | {"x.qweight": torch.ones(1)}, tmp_path / "packed.safetensors")
    with pytest.raises(UserError, match=r"belongs to weights quantized by AWQ or GPTQ\. Give a file in floating point"):
        check(reference, packed)
    with pytest.raises(UserError, match=r"has no component 'unet'\. Choose from: text_encoder, transformer, vae\."):
        check(reference, narrow, "unet")
    with pytest.raises(UserError, match=r"nowhere\.gguf does not exist"):
        check(reference, tmp_path / "nowhere.gguf")


def test_a_truncated_file_and_a_type_that_is_not_read_are_named(
    reference: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    file = write_gguf(weights, tmp_path / "x.gguf", kind="Q8_0")
    check(reference, file)
    content = file.read_bytes()
    truncated = tmp_path / "truncated.gguf"
    truncated.write_bytes(content[:-2000])
    with pytest.raises(UserError, match=r"is truncated: the tensor '.*' lies beyond its end"):
        check(reference, truncated)
    ternary = write_gguf(weights, tmp_path / "ternary.gguf", kind="TQ2_0")
    shutil.copy(ternary, tmp_path / "copy.gguf")
    with pytest.raises(UserError, match=r"has the type TQ2_0, which diffusers does not dequantize"):
        check(reference, tmp_path / "copy.gguf")
