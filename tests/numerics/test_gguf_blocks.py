"""GGUF's blocks, unpacked by the `gguf` package: the weights of the codes, without rounding them again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from torch import Tensor

from edgepress.numerics.affine import QuantizedWeight, dequantize, minmax_qparams, quantize
from edgepress.numerics.gguf_blocks import pack_q4_0, pack_q4_1, pack_q8_0, q4_1_difference
from edgepress.numerics.int8_rows import dequantize_rows, quantize_rows
from edgepress.numerics.quant_spec import QuantSpec


def make_weight(group_size: int, symmetric: bool) -> QuantizedWeight:
    weight = torch.randn(24, 256, generator=torch.Generator().manual_seed(0)) + 0.3
    return quantize(weight, minmax_qparams(weight, QuantSpec(4, group_size, symmetric)))


def unpack(packed: Tensor, kind: str) -> Tensor:
    values: np.ndarray = quants.dequantize(packed.numpy(), GGMLQuantizationType[kind])
    return torch.from_numpy(values)


@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_symmetric_codes_are_exact(group_size: int) -> None:
    weight = make_weight(group_size, symmetric=True)
    assert torch.equal(unpack(pack_q4_0(weight), "Q4_0"), dequantize(weight))


@pytest.mark.parametrize("group_size", [32, 128])
def test_zero_points_become_a_minimum_in_fp16(group_size: int) -> None:
    """The difference is what rounding the minimum makes, and nothing else."""
    weight = make_weight(group_size, symmetric=False)
    steps = (unpack(pack_q4_1(weight), "Q4_1") - dequantize(weight)).abs()
    steps /= weight.qparams.scales.repeat_interleave(group_size, 1)
    assert float(steps.max()) == pytest.approx(q4_1_difference(weight), abs=1e-4)
    assert 0 < q4_1_difference(weight) < 16 * 2**-11


def test_codes_in_8_bits_are_exact() -> None:
    rows = quantize_rows(torch.randn(7, 96, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(unpack(pack_q8_0(rows), "Q8_0"), dequantize_rows(rows))


def test_what_blocks_cannot_hold_is_an_error() -> None:
    with pytest.raises(ValueError, match="zero points at 8"):
        pack_q4_0(make_weight(32, symmetric=False))
    with pytest.raises(ValueError, match="groups of 16"):
        pack_q4_0(make_weight(16, symmetric=True))
    with pytest.raises(ValueError, match="width of 40"):
        pack_q8_0(quantize_rows(torch.ones(2, 40)))
    huge = make_weight(32, symmetric=False)
    huge.qparams.scales.fill_(60000)
    huge.qparams.zero_points.fill_(9)
    with pytest.raises(ValueError, match="minimum"):
        pack_q4_1(huge)
