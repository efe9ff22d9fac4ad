"""The search for a group's range against brute force."""

from __future__ import annotations

import pytest
import torch
from helpers.adversarial import SCHEMES, SIZE, Case, cases
from hypothesis import given, settings
from torch import Tensor

from edgepress.numerics.affine import QParams, minmax_qparams
from edgepress.quantize.algorithms.gptq import add_damping
from edgepress.quantize.algorithms.range_search import CLIP_RATIOS, group_grid, search_clip_range
from edgepress.recipes.schema import Scheme

NAMES = [name for name in SCHEMES if not name.startswith("channel")]


def loss(weight: Tensor, gram: Tensor, grid: QParams) -> Tensor:
    """e^T H e of each output of a group (size, out) on a grid, rounded to the nearest, in float64."""
    scale, zero = grid.scales.double(), grid.zero_points.double()
    codes = (torch.round(weight.double() / scale) + zero).clamp(grid.qmin, grid.qmax)
    error = (codes - zero) * scale - weight.double()
    return torch.einsum("io,ij,jo->o", error, gram.double(), error)


def groups(case: Case) -> list[tuple[Tensor, Tensor]]:
    """Each group's weights (size, out) and its block of H."""
    weight, gram = case.weight.T.contiguous(), add_damping(case.gram)
    starts = range(0, len(weight), SIZE)
    return [(weight[s : s + SIZE], gram[s : s + SIZE, s : s + SIZE]) for s in starts]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None)
@given(case=cases())
def test_it_takes_the_best_of_all_shares_and_never_one_worse_than_the_whole_range(name: str, case: Case) -> None:
    scheme = SCHEMES[name]
    assert CLIP_RATIOS[0] == 1
    for weight, block in groups(case):
        found = loss(weight, block, search_clip_range(weight, block, scheme))
        tried = torch.stack([loss(weight, block, group_grid(weight, scheme, share)) for share in CLIP_RATIOS])
        # Float32 knows an error to about 1e-7 of the weight that it is left of.
        noise = 1e-3 * tried[0] + 1e-10 * block.diagonal().double() @ weight.double().square()
        assert (found <= tried.min(0).values + noise).all()


@pytest.mark.parametrize("name", SCHEMES)
def test_the_whole_range_is_the_min_max_grid(name: str) -> None:
    scheme = SCHEMES[name]
    weight = torch.randn(SIZE, 8, generator=torch.Generator().manual_seed(1))
    found, expected = (
        group_grid(weight, scheme),
        minmax_qparams(weight.T, SIZE, scheme.zero_point, scheme.bits, scheme.narrow_range),
    )
    assert torch.equal(found.scales, expected.scales[:, 0])
    assert torch.equal(found.zero_points, expected.zero_points[:, 0])
    assert found[2:] == expected[2:]


def test_an_outlier_that_meets_no_input_is_clipped() -> None:
    weight = torch.randn(SIZE, 64, generator=torch.Generator().manual_seed(2))
    weight[0] = 12.0
    gram = torch.eye(SIZE)
    gram[0, 0] = 0.0
    scheme = Scheme(group_size=SIZE)
    shortened = search_clip_range(weight, gram, scheme).scales / group_grid(weight, scheme).scales
    assert (shortened < 0.95).float().mean() > 0.9
    assert shortened.mean() < 0.8


def test_an_outlier_that_matters_is_kept() -> None:
    weight = torch.randn(SIZE, 64, generator=torch.Generator().manual_seed(3))
    weight[0] = 12.0
    gram = torch.eye(SIZE)
    gram[0, 0] = 1e4
    found = search_clip_range(weight, gram, Scheme(group_size=SIZE))
    ends = (15 - found.zero_points.float()) * found.scales
    assert (ends > 11).all()
