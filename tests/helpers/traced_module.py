"""A module that computes something from the output of a linear, to be traced."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Compute = Callable[[Tensor], Tensor]


class TracedModule(nn.Module):
    """A linear of 6 inputs and 4 outputs, and what is computed from its output."""

    def __init__(self, compute: Compute) -> None:
        super().__init__()
        self.linear, self.compute = nn.Linear(6, 4), compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self.linear(x))
