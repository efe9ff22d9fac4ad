"""ComfyUI's quantized files: a file by its own formulas, and what edgepress exports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.single_files import read_component, use_original_names, write_safetensors
from torch import Tensor

from edgepress.common.errors import UserError
from edgepress.pipelines.comfy_layouts import dequantize_comfy, find_comfy_layouts
from edgepress.pipelines.component_files import ComponentFile, check_component_file, load_component_file
from edgepress.storage.safetensors_header import read_tensor_headers


def describe(form: str) -> Tensor:
    return torch.tensor(list(json.dumps({"format": form}).encode()), dtype=torch.uint8)


@pytest.mark.parametrize("is_old", [True, False])
def test_float8_is_multiplied_by_its_scale(is_old: bool, tmp_path: Path) -> None:
    weight = torch.randn(4, 8).to(torch.float8_e4m3fn)
    scale = torch.tensor(0.25)
    tensors = {"a.weight": weight, "a.bias": torch.ones(4), "b.weight": torch.ones(2, 2)}
    if is_old:
        tensors |= {"a.scale_weight": scale, "a.scale_input": torch.ones(()), "scaled_fp8": torch.zeros(2)}
    else:
        tensors |= {"a.weight_scale": scale, "a.comfy_quant": describe("float8_e4m3fn")}
    file = write_safetensors(tensors, tmp_path / "x.safetensors")
    assert find_comfy_layouts(read_tensor_headers(file))
    result = dequantize_comfy(file)
    assert result.keys() == {"a.weight", "a.bias", "b.weight"}
    assert torch.equal(result["a.weight"], weight.float() / 4)


def test_four_bits_are_pairs_with_scales_and_zeros(tmp_path: Path) -> None:
    codes = torch.arange(16, dtype=torch.uint8).repeat(2, 8)  # (2, 128): two groups of 64
    scale, zero = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[10.0, 20.0], [30.0, 40.0]])  # (groups, out)
    tensors = {
        "a.weight": (codes[:, ::2] | codes[:, 1::2] << 4).view(torch.int8),
        "a.weight_scale": scale.half(),
        "a.weight_zero": zero.half(),
        "a.comfy_quant": describe("awq_w4a16"),
    }
    weight = dequantize_comfy(write_safetensors(tensors, tmp_path / "x.safetensors"))["a.weight"]
    expected = [
        [(int(codes[row, i]) - 8) * float(scale[i // 64, row]) + float(zero[i // 64, row]) for i in range(128)]
        for row in range(2)
    ]
    assert torch.equal(weight, torch.tensor(expected))


def test_a_scaled_transformer_is_loaded(reference: Path, tmp_path: Path) -> None:
    weights = read_component(reference / "transformer")
    tensors = use_original_names(weights)
    name = next(name for name in tensors if name.endswith("qkv.weight"))
    scaled = (tensors[name] * 16).to(torch.float8_e4m3fn)
    tensors |= {name: scaled, name.replace(".weight", ".scale_weight"): torch.tensor(1 / 16)}
    prefixed = {f"model.diffusion_model.{key}": tensor for key, tensor in tensors.items()}
    replacement = ComponentFile("transformer", write_safetensors(prefixed, tmp_path / "x.safetensors"))
    check_component_file(reference, replacement)
    state = load_component_file(reference, replacement, torch.float32).state_dict()
    rows = [state[name.replace("qkv", part)] for part in ("to_q", "to_k", "to_v")]
    assert torch.equal(torch.cat(rows), scaled.float() / 16)


def test_other_layouts_and_missing_scales_are_named(tmp_path: Path) -> None:
    unknown = {"a.weight": torch.ones(2, 2), "a.comfy_quant": describe("nvfp4")}
    with pytest.raises(UserError, match="layout 'nvfp4', which is not read here"):
        dequantize_comfy(write_safetensors(unknown, tmp_path / "a.safetensors"))
    lacking = {"a.weight": torch.ones(2, 2), "a.comfy_quant": describe("awq_w4a16")}
    with pytest.raises(UserError, match=r"lacks the tensor 'a\.weight_scale' of a quantized layer"):
        dequantize_comfy(write_safetensors(lacking, tmp_path / "b.safetensors"))
    garbled = {"a.weight": torch.ones(2, 2), "a.comfy_quant": torch.ones(3, dtype=torch.uint8)}
    with pytest.raises(UserError, match=r"does not say the layout of 'a\.comfy_quant'"):
        dequantize_comfy(write_safetensors(garbled, tmp_path / "c.safetensors"))
