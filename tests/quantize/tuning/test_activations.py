"""Inputs in 8 bits: rounded forward, exact backward."""

from __future__ import annotations

import torch
from torch import nn

from edgepress.quantize.tuning.activations import quantize_inputs

X = torch.tensor([[12.7, 0.04, -0.06], [1.27, 0.004, 1.0]])


def run(scale: float | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns what an identity gives for X, and its gradient."""
    module = nn.Sequential(nn.Linear(3, 3, bias=False))
    module.get_parameter("0.weight").data = torch.eye(3)
    quantize_inputs(module, {"0": scale})
    x = X.clone().requires_grad_()
    output = module(x)
    output.sum().backward()
    assert x.grad is not None
    return output.detach(), x.grad


def test_every_token_has_its_scale() -> None:
    output, gradient = run(None)
    assert torch.allclose(output, torch.tensor([[12.7, 0.0, -0.1], [1.27, 0.0, 1.0]]), atol=1e-6)
    assert torch.equal(gradient, torch.ones(2, 3))


def test_a_static_scale_clips() -> None:
    output, gradient = run(0.05)
    assert torch.allclose(output, torch.tensor([[6.35, 0.05, -0.05], [1.25, 0.0, 1.0]]), atol=1e-6)
    assert torch.equal(gradient, torch.ones(2, 3))
