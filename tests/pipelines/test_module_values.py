"""Numbers that a module cannot compute with are named; those that it can are not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgepress.pipelines.module_values import find_unusable_value


class Rotary(nn.Module):
    def __init__(self, theta: object) -> None:
        super().__init__()
        self.theta = theta


@pytest.mark.parametrize(
    ("module", "clause"),
    [
        (nn.LayerNorm(4, eps=None), "0.eps is null"),  # type: ignore[arg-type]
        (nn.LayerNorm(4, eps=-1e-5), "0.eps is -1e-05"),
        (nn.GroupNorm(2, 4, eps=float("nan")), "0.eps is nan"),
        (nn.LayerNorm(4, eps="small"), "0.eps is 'small'"),  # type: ignore[arg-type]
        (Rotary(0), "0.theta is 0"),
        (Rotary(None), "0.theta is null"),
        (nn.LayerNorm(4, eps=0.0), ""),
        (nn.RMSNorm(4), ""),  # its epsilon is that of the dtype
        (Rotary([10000, 256]), ""),
        (nn.BatchNorm1d(4), ""),
    ],
)
def test_numbers(module: nn.Module, clause: str) -> None:
    assert find_unusable_value(nn.Sequential(module)) == clause


def test_buffers() -> None:
    module = nn.Module()
    module.register_buffer("frequencies", torch.tensor([1.0, torch.inf]))
    assert find_unusable_value(module) == "frequencies has numbers that are not finite"
    module.register_buffer("frequencies", torch.tensor([1.0, torch.inf], device="meta"))
    assert find_unusable_value(module) == ""
