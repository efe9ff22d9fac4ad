"""The search for each group's clipping range against brute force."""

from __future__ import annotations

import pytest
import torch
from helpers.adversarial import GROUP_SIZE, SPECS, Case, cases, make_spec
from hypothesis import given, settings
from torch import Tensor

from edgepress.numerics.affine import QParams, choose_qparams, minmax_qparams, to_groups
from edgepress.numerics.quant_spec import QuantSpec
from edgepress.quantize.algorithms.gptq import add_damping
from edgepress.quantize.algorithms.range_search import CLIP_RATIOS, search_clip_range

SPEC = QuantSpec(group_size=GROUP_SIZE)


def compute_losses(weight: Tensor, hessian: Tensor, qparams: QParams, size: int) -> Tensor:
    """e H_gg e^T of each group rounded to nearest, (out, groups), in float64."""
    scales, zero_points = qparams.scales.double()[..., None], qparams.zero_points.double()[..., None]
    groups = to_groups(weight, size).double()
    codes = (torch.round(groups / scales) + zero_points).clamp(qparams.qmin, qparams.qmax)
    error = (codes - zero_points) * scales - groups
    starts = range(0, len(hessian), size)
    blocks = torch.stack([hessian[start : start + size, start : start + size] for start in starts]).double()
    return torch.einsum("ogi,gij,ogj->og", error, blocks, error)


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=12, deadline=None)
@given(case=cases())
def test_it_takes_the_best_of_all_ratios_and_never_one_worse_than_the_whole_range(name: str, case: Case) -> None:
    weight, hessian = case.weight, add_damping(case.hessian)
    spec = make_spec(name, weight.shape[1])
    groups = to_groups(weight, spec.group_size)
    low, high = groups.amin(-1), groups.amax(-1)
    assert CLIP_RATIOS[0] == 1
    qparams = [choose_qparams(low * ratio, high * ratio, spec) for ratio in CLIP_RATIOS]
    candidates = torch.stack([compute_losses(weight, hessian, candidate, spec.group_size) for candidate in qparams])
    losses = compute_losses(weight, hessian, search_clip_range(weight, hessian, spec), spec.group_size)
    # Float32 knows an error to about 1e-7 of the weight that it is left of.
    energy = to_groups(hessian.diagonal()[None], spec.group_size).double() * groups.double().square()
    assert (losses <= candidates.min(0).values + 1e-3 * candidates[0] + 1e-10 * energy.sum(-1)).all()


@pytest.mark.parametrize("name", SPECS)
def test_the_parameters_have_the_shape_and_limits_of_min_max_ones(name: str) -> None:
    weight = torch.randn(8, 2 * GROUP_SIZE, generator=torch.Generator().manual_seed(1))
    spec = make_spec(name, weight.shape[1])
    qparams, expected = search_clip_range(weight, torch.eye(2 * GROUP_SIZE), spec), minmax_qparams(weight, spec)
    assert qparams.scales.shape == expected.scales.shape
    assert qparams.zero_points.dtype == expected.zero_points.dtype
    assert (qparams.scales <= expected.scales).all()
    assert qparams[2:] == expected[2:]


def test_an_outlier_that_meets_no_input_is_clipped() -> None:
    weight = torch.randn(64, GROUP_SIZE, generator=torch.Generator().manual_seed(2))
    weight[:, 0] = 12.0
    hessian = torch.eye(GROUP_SIZE)
    hessian[0, 0] = 0.0
    ratio = search_clip_range(weight, hessian, SPEC).scales / minmax_qparams(weight, SPEC).scales
    assert (ratio < 0.95).float().mean() > 0.9
    assert ratio.mean() < 0.8


def test_an_outlier_that_matters_is_not_clipped() -> None:
    weight = torch.randn(64, GROUP_SIZE, generator=torch.Generator().manual_seed(3))
    weight[:, 0] = 12.0
    hessian = torch.eye(GROUP_SIZE)
    hessian[0, 0] = 1e4
    qparams = search_clip_range(weight, hessian, SPEC)
    ends = (15 - qparams.zero_points.float()) * qparams.scales
    assert (ends > 11).all()
