"""The comparison with stock transformers: it sees a single nibble. The environment itself is `make bench-interop`'s."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edgepress.benchmarks.quantization.interop import EncoderComparison
from edgepress.numerics import affine, awq_packing

LINEARS = ("layers.0.up", "layers.1.up")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two packed linears in two files, as a sharded component has them."""
    for number, linear in enumerate(LINEARS):
        weight = torch.randn(24, 64, generator=torch.Generator().manual_seed(number))
        packed = awq_packing.pack_awq(affine.quantize(weight, affine.minmax_qparams(weight, 32)))
        stored = {f"{linear}.{kind}": tensor for kind, tensor in packed._asdict().items()}
        save_file(stored | {f"norm.{number}": torch.ones(3)}, tmp_path / f"model-{number}.safetensors")
    return tmp_path


def as_read(folder: Path) -> dict[str, Tensor]:
    """What stock transformers reads when all is well."""
    reading = EncoderComparison(folder, {})
    return {name: tensor.clone() for linear in LINEARS for name, tensor in reading.expected_tensors(linear).items()}


def test_the_same_values_do_not_differ(folder: Path) -> None:
    reading = EncoderComparison(folder, as_read(folder))
    assert reading.linear_names() == list(LINEARS)
    assert reading.find_differences() == []


@pytest.mark.parametrize("name", ["codes.layers.0.up", "zeros.layers.1.up", "weight.layers.1.up"])
def test_one_other_value_differs(folder: Path, name: str) -> None:
    stock = as_read(folder)
    stock[name][1, 2] += 1
    assert EncoderComparison(folder, stock).find_differences() == [name]


def test_what_was_not_found_or_has_another_dtype_differs(folder: Path) -> None:
    stock = as_read(folder)
    del stock["codes.layers.0.up"]
    stock["weight.layers.1.up"] = stock["weight.layers.1.up"].float()
    assert EncoderComparison(folder, stock).find_differences() == ["codes.layers.0.up", "weight.layers.1.up"]
