"""Linears in bfloat16 that compute in float32: the exact product of the same numbers, rounded once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgepress.quantize.calibration import float32_linears
from edgepress.quantize.calibration.float32_linears import compute_linears_in_float32


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_outputs_are_exact_products_rounded_once(
    dtype: torch.dtype, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(float32_linears, "CHUNK_BYTES", 4 * 96 * 7)  # the last chunk has fewer rows
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(96, 40, bias=bias)).to(dtype)
    x = torch.randn(3, 5, 96).to(dtype)
    compute_linears_in_float32(model)
    output = model(x)
    exact = x.double() @ model[0].weight.double().T + (model[0].bias.double() if bias else 0)
    assert output.dtype == dtype
    assert model[0].weight.dtype == dtype
    # Half a step of the dtype, and what sums in float32 add to it.
    assert ((output.double() - exact).abs() <= exact.abs() * torch.finfo(dtype).eps * 0.5 + 1e-5).all()


def test_hooks_of_linears_are_called() -> None:
    model = nn.Sequential(nn.Linear(4, 2)).bfloat16()
    compute_linears_in_float32(model)
    calls = []
    model[0].register_forward_hook(lambda *call: calls.append(call))
    assert torch.equal(model(torch.ones(1, 4).bfloat16()), calls[0][2])
