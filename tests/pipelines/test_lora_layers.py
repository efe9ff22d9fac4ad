"""Adapters beside linear layers in 4 and in 8 bits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgepress.pipelines.quantized_modules import Int4Linear, RowScaledLinear

peft = pytest.importorskip("peft")


class Block(nn.Module):
    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear, self.norm = linear, nn.LayerNorm(64)  # PEFT asks for a parameter of the model


def make_linear(kind: str) -> Int4Linear | RowScaledLinear:
    torch.manual_seed(0)
    linear = Int4Linear(64, 32, 32, bias=True) if kind == "int4" else RowScaledLinear(64, 32, bias=True)
    linear.qweight.copy_(torch.randint(0, 255, linear.qweight.shape))
    linear.scales.copy_(torch.rand(linear.scales.shape))
    return linear


@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_an_adapter_adds_its_product(kind: str) -> None:
    from edgepress.pipelines.lora_layers import register_lora_layers

    register_lora_layers()
    block = Block(make_linear(kind))
    x = torch.randn(3, 64)
    before = block.linear(x)
    config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["linear"], init_lora_weights=False)
    peft.inject_adapter_in_model(config, block)
    down, up = block.linear.lora_A["default"].weight, block.linear.lora_B["default"].weight
    torch.testing.assert_close(block.linear(x), before + 2 * x @ down.T @ up.T)
    block.linear.enable_adapters(False)
    assert torch.equal(block.linear(x), before)
