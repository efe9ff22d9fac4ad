"""The comparison with stock transformers notices a single code. `make bench-interop` runs it with real transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edgepress.benchmarks.quantization.interop import EncoderComparison
from edgepress.numerics import affine, awq_packing
from edgepress.numerics.quant_spec import QuantSpec

LINEARS = ("layers.0.up", "layers.1.up")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two packed linear layers in two files, as in a sharded component."""
    for number, linear in enumerate(LINEARS):
        weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(number))
        packed = awq_packing.pack_awq(affine.quantize(weight, affine.minmax_qparams(weight, QuantSpec(group_size=32))))
        stored = {f"{linear}.{kind}": tensor for kind, tensor in packed._asdict().items()}
        save_file(stored | {f"norm.{number}": torch.ones(3)}, tmp_path / f"model-{number}.safetensors")
    return tmp_path


def read_stock(folder: Path) -> dict[str, Tensor]:
    """Returns what stock transformers reads if everything is equal."""
    comparison = EncoderComparison(folder, {})
    return {name: tensor.clone() for linear in LINEARS for name, tensor in comparison.expected_tensors(linear).items()}


def test_equal_tensors_do_not_differ(folder: Path) -> None:
    comparison = EncoderComparison(folder, read_stock(folder))
    assert comparison.linear_names() == list(LINEARS)
    assert comparison.find_differences() == []


@pytest.mark.parametrize("name", ["codes.layers.0.up", "zeros.layers.1.up", "weight.layers.1.up"])
def test_a_single_value_is_noticed(folder: Path, name: str) -> None:
    stock = read_stock(folder)
    stock[name][1, 2] += 1
    assert EncoderComparison(folder, stock).find_differences() == [name]


def test_a_missing_tensor_or_another_dtype_is_noticed(folder: Path) -> None:
    stock = read_stock(folder)
    del stock["codes.layers.0.up"]
    stock["weight.layers.1.up"] = stock["weight.layers.1.up"].float()
    assert EncoderComparison(folder, stock).find_differences() == ["codes.layers.0.up", "weight.layers.1.up"]
