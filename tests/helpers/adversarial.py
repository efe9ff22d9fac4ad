"""Hypothesis strategies for the weights and inputs that are hardest to quantize."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from edgepress.numerics.quant_spec import QuantSpec

GROUP_SIZE = 32
SPECS = {
    "asymmetric": QuantSpec(group_size=GROUP_SIZE),
    "symmetric": QuantSpec(group_size=GROUP_SIZE, symmetric=True),
    "narrow": QuantSpec(group_size=GROUP_SIZE, symmetric=True, narrow_range=True),
    "8 bits": QuantSpec(bits=8, group_size=GROUP_SIZE),
    "channel": QuantSpec(symmetric=True, narrow_range=True),
    "channel, 8 bits": QuantSpec(bits=8, symmetric=True, narrow_range=True),
}
GROUP_KINDS = ("normal", "heavy", "constant", "positive", "negative", "zero", "outlier", "tiny", "ends")
INPUT_KINDS = ("normal", "loud", "dead", "twins", "short", "single", "zero", "faint", "shifted")


class Case(NamedTuple):
    """Weights (out, in) and the tokens (n, in) that they meet."""

    weight: Tensor
    tokens: Tensor

    @property
    def hessian(self) -> Tensor:
        """H in float32, computed in float64."""
        x = self.tokens.double()
        return (x.T @ x / len(x)).float()


def make_case(seed: int, rows: int, kinds: list[str], inputs: str) -> Case:
    """A weight whose groups are of the given kinds, turned from row to row, before inputs of one kind."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.cat([_group(kind, rows, generator) for kind in kinds], dim=1)
    for row in range(rows):
        weight[row] = weight[row].reshape(-1, GROUP_SIZE).roll(row, 0).reshape(-1)
    return Case(weight, _tokens(inputs, weight.shape[1], generator))


def make_spec(name: str, width: int) -> QuantSpec:
    """A format of SPECS for weights of some input width; those called `channel` have one group per output."""
    return replace(SPECS[name], group_size=width) if name.startswith("channel") else SPECS[name]


@st.composite
def cases(draw: st.DrawFn, rows: int = 8) -> Case:
    kinds = draw(st.lists(st.sampled_from(GROUP_KINDS), min_size=1, max_size=4))
    return make_case(draw(st.integers(0, 2**31)), rows, kinds, draw(st.sampled_from(INPUT_KINDS)))


def _group(kind: str, rows: int, generator: torch.Generator) -> Tensor:
    """(rows, GROUP_SIZE) weights as a layer of a large model has them, a few hundredths each."""
    normal = 0.02 * torch.randn(rows, GROUP_SIZE, generator=generator)
    first = torch.arange(GROUP_SIZE) == 0
    return {
        "normal": normal,
        "heavy": 0.02 * (normal / 0.02) ** 3,
        "constant": torch.full_like(normal, 0.03),
        "positive": normal.abs() + 0.02,
        "negative": -normal.abs() - 0.02,
        "zero": torch.zeros_like(normal),
        "outlier": torch.where(first, 300.0, normal),
        "tiny": 1e-3 * normal,
        "ends": 0.05 * normal.sign(),
    }[kind]


def _tokens(kind: str, width: int, generator: torch.Generator) -> Tensor:
    x = torch.randn(4 * width, width, generator=generator)
    mixed = x @ torch.randn(width, width, generator=generator) / width**0.5
    channel = torch.arange(width)
    return {
        "normal": mixed,
        "loud": torch.where(channel % 13 == 0, 1000 * mixed, mixed),
        "dead": torch.where(channel % 3 == 0, 0.0, mixed),
        "twins": mixed[:, channel // 2],
        "short": mixed[: width // 4],
        "single": mixed[:1],
        "zero": torch.zeros_like(x),
        "faint": 1e-6 * mixed,
        "shifted": mixed + 30,
    }[kind]
