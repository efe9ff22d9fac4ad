"""Weights and inputs that a quantizer may meet at worst, for hypothesis: what tests of the ladder's steps share."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from edgepress.recipes.schema import Scheme

SIZE = 32  # of a group
SCHEMES = {
    "asymmetric": Scheme(group_size=SIZE),
    "symmetric": Scheme(group_size=SIZE, zero_point=False),
    "narrow": Scheme(group_size=SIZE, zero_point=False, narrow_range=True),
    "8 bits": Scheme(bits=8, group_size=SIZE),
    "channel": Scheme(group_size="channel", zero_point=False, narrow_range=True),
    "channel, 8 bits": Scheme(bits=8, group_size="channel", zero_point=False, narrow_range=True),
}
GROUPS = ("normal", "heavy", "constant", "positive", "negative", "zero", "outlier", "tiny", "ends")
INPUTS = ("normal", "loud", "dead", "twins", "short", "one", "zero", "faint", "shifted")


class Case(NamedTuple):
    """Weights (out, in) and the tokens (n, in) that they meet."""

    weight: Tensor
    tokens: Tensor

    @property
    def gram(self) -> Tensor:
        """H in float32, from float64."""
        x = self.tokens.double()
        return (x.T @ x / len(x)).float()


def make(seed: int, rows: int, kinds: list[str], inputs: str) -> Case:
    """A weight whose groups are of the given kinds, turned from row to row, before inputs of one kind."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.cat([_group(kind, rows, generator) for kind in kinds], dim=1)
    for row in range(rows):
        weight[row] = weight[row].reshape(-1, SIZE).roll(row, 0).reshape(-1)
    return Case(weight, _tokens(inputs, weight.shape[1], generator))


@st.composite
def cases(draw: st.DrawFn, rows: int = 8) -> Case:
    kinds = draw(st.lists(st.sampled_from(GROUPS), min_size=1, max_size=4))
    return make(draw(st.integers(0, 2**31)), rows, kinds, draw(st.sampled_from(INPUTS)))


def _group(kind: str, rows: int, generator: torch.Generator) -> Tensor:
    """(rows, SIZE) weights as a layer of a large model has them, a few hundredths each."""
    normal = 0.02 * torch.randn(rows, SIZE, generator=generator)
    first = torch.arange(SIZE) == 0
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
        "one": mixed[:1],
        "zero": torch.zeros_like(x),
        "faint": 1e-6 * mixed,
        "shifted": mixed + 30,
    }[kind]
