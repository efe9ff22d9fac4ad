"""Single-file checkpoints become folders with the same weights; what does not fit is refused, and nothing is left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor

import edgepress
from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.models.z_image.single_file import TRANSFORMER_NAMES
from edgepress.quantize.plan import build_plan
from edgepress.recipes.schema import QuantizationSettings
from edgepress.storage.files import hash_files

Tensors = dict[str, Tensor]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def weights(lean: Path) -> Tensors:
    return load_file(lean / "transformer" / WEIGHTS)


def use_release_names(weights: Tensors) -> Tensors:
    """The file that the original release would be, with queries, keys and values in one tensor."""
    groups = TRANSFORMER_NAMES.group(weights)
    return {name: torch.cat([weights[part] for part in tensor.parts]) for name, tensor in groups.items()}


def add_prefix(weights: Tensors) -> Tensors:
    return {f"model.diffusion_model.{name}": tensor for name, tensor in use_release_names(weights).items()}


def add_prefix_to_names_of_the_class(weights: Tensors) -> Tensors:
    return {f"model.diffusion_model.{name}": tensor for name, tensor in weights.items()}


def add_prefixes_of_training(weights: Tensors) -> Tensors:
    return {f"_orig_mod.transformer.{name}": tensor for name, tensor in weights.items()}


def keep_names(weights: Tensors) -> Tensors:
    return dict(weights)


@pytest.mark.parametrize(
    "arrange", [use_release_names, add_prefix, keep_names, add_prefix_to_names_of_the_class, add_prefixes_of_training]
)
def test_the_folder_holds_the_same_weights(
    arrange: Callable[[Tensors], Tensors], weights: Tensors, lean: Path, tmp_path: Path
) -> None:
    unchanged = [file for file in hash_files(lean) if not file.path.endswith(f"transformer/{WEIGHTS}")]
    save_file(arrange(weights), tmp_path / "file.safetensors")
    result = edgepress.convert(tmp_path / "file.safetensors", base=lean, output=tmp_path / "new")
    assert (result.components, result.num_weights) == (("transformer",), sum(t.numel() for t in weights.values()))
    converted = load_file(tmp_path / "new" / "transformer" / WEIGHTS)
    assert converted.keys() == weights.keys()
    assert all(torch.equal(converted[name], weights[name]) for name in weights)
    written = hash_files(tmp_path / "new")
    assert [file for file in written if not file.path.endswith(f"transformer/{WEIGHTS}")] == unchanged
    build_plan(tmp_path / "new", QuantizationSettings())


def test_the_weights_of_the_base_need_not_be_there(weights: Tensors, lean: Path, tmp_path: Path) -> None:
    save_file(use_release_names(weights), tmp_path / "file.safetensors")
    shutil.copytree(lean, tmp_path / "base")
    (tmp_path / "base" / "transformer" / WEIGHTS).unlink()
    result = CliRunner().invoke(
        main,
        ["convert", str(tmp_path / "file.safetensors"), "--base", str(tmp_path / "base"), "-o", str(tmp_path / "new")],
    )
    assert result.exit_code == 0, result.output
    assert "transformer of the file" in result.stdout
    assert (tmp_path / "new" / "transformer" / WEIGHTS).is_file()


def drop_one(tensors: Tensors) -> None:
    del tensors["layers.0.attention.qkv.weight"]


def add_scales(tensors: Tensors) -> None:
    tensors["layers.0.attention.qkv.scale_weight"] = torch.ones(1)


def cut_rows(tensors: Tensors) -> None:
    tensors["cap_embedder.1.weight"] = tensors["cap_embedder.1.weight"][1:].clone()


def add_text_encoder(tensors: Tensors) -> None:
    tensors["text_encoders.qwen3_4b.model.norm.weight"] = torch.ones(1)


def use_float8(tensors: Tensors) -> None:
    tensors["cap_embedder.1.weight"] = tensors["cap_embedder.1.weight"].to(torch.float8_e4m3fn)


def replace_all(tensors: Tensors) -> None:
    tensors.clear()
    tensors["lora_down.weight"] = torch.ones(2, 2)


MISFITS: dict[Callable[[Tensors], None], str] = {
    drop_one: r"does not hold the transformer of .*, a ZImageTransformer2DModel: 'layers\.0\.attention\.to_\w.*missing",
    add_scales: r"'layers\.0\.attention\.qkv\.scale_weight' unknown",
    cut_rows: r"'cap_embedder\.1\.weight' has the shape \(\d+, \d+\) instead of",
    add_text_encoder: r"holds a text encoder under names that are not read, such as 'text_encoders\.qwen3_4b",
    use_float8: r"has weights in F8_E4M3, which is not read\. Give a file in BF16",
    replace_all: r"does not hold the vae of .*: it has 4 weights, in lora_down\.weight, and that has [\d,]+\. Give",
}


@pytest.mark.parametrize("change", MISFITS, ids=lambda change: change.__name__)
def test_what_does_not_fit_is_refused(
    change: Callable[[Tensors], None], weights: Tensors, lean: Path, tmp_path: Path
) -> None:
    tensors = use_release_names(weights)
    change(tensors)
    save_file(tensors, tmp_path / "file.safetensors")
    with pytest.raises(UserError, match=MISFITS[change]):
        edgepress.convert(tmp_path / "file.safetensors", base=lean, output=tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file.safetensors"]


def test_the_one_missing_tensor_is_named(weights: Tensors, lean: Path, tmp_path: Path) -> None:
    name = next(name for name in weights if name.endswith("to_k.weight"))
    save_file({key: tensor for key, tensor in weights.items() if key != name}, tmp_path / "file.safetensors")
    with pytest.raises(UserError, match=rf"ZImageTransformer2DModel: '{name}' missing\. Give"):
        edgepress.convert(tmp_path / "file.safetensors", base=lean, output=tmp_path / "new")


def test_other_input_that_is_refused(weights: Tensors, lean: Path, tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    save_file(use_release_names(weights), file)
    with pytest.raises(UserError, match=r"absent\.safetensors does not exist"):
        edgepress.convert(tmp_path / "absent.safetensors", base=lean, output=tmp_path / "new")
    with pytest.raises(UserError, match=r"lean0 is no safetensors file"):
        edgepress.convert(lean.parent, base=lean, output=tmp_path / "new")
    with pytest.raises(
        UserError, match=r"has no component 'text_encoder' that diffusers reads .* Choose from: transformer"
    ):
        edgepress.convert(file, base=lean, output=tmp_path / "new", component="text_encoder")
    with pytest.raises(UserError, match=r"is not empty\. Choose another --output"):
        edgepress.convert(file, base=lean, output=tmp_path)
    shutil.copytree(lean, tmp_path / "base")
    config = tmp_path / "base" / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(UserError, match=r"transformer is quantized\. Give the pipeline in its original precision"):
        edgepress.convert(file, base=tmp_path / "base", output=tmp_path / "new")
    assert not (tmp_path / "new").exists()
