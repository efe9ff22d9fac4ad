"""The descent of scales and codes: every step goes down, on fp16 scales and whole codes."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.adversarial import SCHEMES, Case, cases, make
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgepress.numerics.affine import QParams
from edgepress.quantize.algorithms import scale_refit as module
from edgepress.quantize.algorithms.gptq import add_damping, gptq_quantize, ldl_factorize
from edgepress.quantize.algorithms.range_search import group_grid
from edgepress.quantize.algorithms.rounding import Rounded, nearest, stacked, value_of
from edgepress.quantize.algorithms.scale_refit import refit_scales
from edgepress.recipes.schema import Scheme


def objective(weight: Tensor, rounded: Rounded, gram: Tensor) -> Tensor:
    """e^T H e of each output, in float64."""
    error = value_of(rounded).double() - weight.double()
    return (error * (gram.double() @ error)).sum(0)


def rounded_by(method: str, weight: Tensor, gram: Tensor, scheme: Scheme) -> Rounded:
    size = scheme.resolve_group_size(len(weight))
    grid = stacked([group_grid(part, scheme) for part in weight.split(size)])
    return gptq_quantize(weight, ldl_factorize(gram, size), grid) if method == "gptq" else nearest(weight, grid)


def check(weight: Tensor, before: Rounded, after: Rounded, gram: Tensor) -> None:
    old, new = objective(weight, before, gram), objective(weight, after, gram)
    # Float32: an error is known to about 1e-7 of the weight that it is left of.
    noise = 1e-5 * old + 1e-10 * objective(weight, before._replace(codes=before.codes * 0), gram)
    worst = ((new - old) / (noise + 1e-300)).max()
    assert (new <= old + noise).all(), f"an output lost {worst} times the noise"
    assert torch.isfinite(value_of(after)).all()
    scales = after.grid.scales
    assert (scales > 0).all()
    assert torch.equal(scales, scales.half().float())
    assert torch.equal(after.grid.zero_points, before.grid.zero_points)
    assert after.codes.min() >= after.grid.qmin
    assert after.codes.max() <= after.grid.qmax


@pytest.mark.parametrize("method", ["rtn", "gptq"])
@pytest.mark.parametrize("name", SCHEMES)
@settings(max_examples=12, deadline=None)
@given(case=cases())
def test_no_output_ever_loses(name: str, method: str, case: Case) -> None:
    weight, gram = case.weight.T.contiguous(), add_damping(case.gram)
    before = rounded_by(method, weight, gram, SCHEMES[name])
    check(weight, before, refit_scales(weight, before, gram), gram)


@settings(max_examples=20, deadline=None)
@given(cases(), st.sampled_from(["narrow", "channel"]))
def test_a_narrow_grid_keeps_a_code_at_an_end(case: Case, name: str) -> None:
    weight, gram = case.weight.T.contiguous(), add_damping(case.gram)
    before = rounded_by("gptq", weight, gram, SCHEMES[name])
    codes = refit_scales(weight, before, gram).codes
    ends = ((codes == 1) | (codes == 15)).reshape(len(before.grid.scales), -1, codes.shape[1])
    assert ends.any(1).all()


def test_it_helps_both_plain_rounding_and_gptq() -> None:
    case = make(1, 64, ["normal", "heavy", "normal", "positive"], "normal")
    weight, gram = case.weight.T.contiguous(), add_damping(case.gram)
    for method, share in (("rtn", 0.8), ("gptq", 0.97)):
        before = rounded_by(method, weight, gram, SCHEMES["asymmetric"])
        gained = (
            objective(weight, refit_scales(weight, before, gram), gram).sum() / objective(weight, before, gram).sum()
        )
        assert gained < share, f"{method}: {gained:.3f} of the error is left"


@settings(max_examples=20, deadline=None)
@given(cases(), st.sampled_from(list(SCHEMES)))
def test_nothing_changes_where_nothing_is_lost(case: Case, name: str) -> None:
    """Weights that stand on the grid exactly."""
    gram = add_damping(case.gram)
    before = rounded_by("rtn", case.weight.T.contiguous(), gram, SCHEMES[name])
    after = refit_scales(value_of(before), before, gram)
    assert torch.equal(after.codes, before.codes)
    assert torch.equal(after.grid.scales, before.grid.scales)


def test_nothing_changes_at_the_best_of_all_codes_and_scales() -> None:
    """Brute force: of 3 channels all codes 0..15 around a zero of 7, each with its own best scale in fp16."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(40, 3, generator=generator) @ torch.randn(3, 3, generator=generator)
    gram = add_damping(x.T @ x / len(x)).double()
    steps = torch.tensor(list(itertools.product(range(-7, 9), repeat=3))).double()
    for _ in range(8):
        weight = torch.randn(3, generator=generator).double()
        bend = (steps @ gram * steps).sum(1).clamp(min=1e-9)
        scale = ((steps @ gram @ weight) / bend).half().double()
        error = steps * scale[:, None] - weight
        best = int(torch.where(scale > 0, (error @ gram * error).sum(1), torch.inf).argmin())
        grid = QParams(scale[best].float().reshape(1, 1), torch.full((1, 1), 7, dtype=torch.uint8))
        before = Rounded((steps[best] + 7).to(torch.uint8)[:, None], grid)
        after = refit_scales(weight.float()[:, None], before, gram.float())
        assert torch.equal(value_of(after), value_of(before))


def test_one_scale_is_the_least_squares_one() -> None:
    """Of one group and channel: the scale that makes the one step fit, as fp16 has it."""
    weight = torch.tensor([[0.7]])
    before = Rounded(
        torch.tensor([[12]], dtype=torch.uint8),
        QParams(torch.tensor([[0.1]]).half().float(), torch.tensor([[8]], dtype=torch.uint8)),
    )
    after = refit_scales(weight, before, torch.eye(1))
    assert after.codes.item() == 12
    assert after.grid.scales.item() == torch.tensor(0.7 / 4).half().item()


def test_what_it_was_given_is_left_alone() -> None:
    case = make(3, 8, ["normal", "heavy"], "normal")
    weight, gram = case.weight.T.contiguous(), add_damping(case.gram)
    before = rounded_by("rtn", weight, gram, SCHEMES["asymmetric"])
    kept = [tensor.clone() for tensor in (weight, gram, before.codes, before.grid.scales)]
    refit_scales(weight, before, gram)
    assert all(map(torch.equal, kept, (weight, gram, before.codes, before.grid.scales)))


def test_more_sweeps_never_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make(4, 32, ["normal", "heavy", "outlier"], "shifted")
    weight, gram = case.weight.T.contiguous(), add_damping(case.gram)
    before = rounded_by("rtn", weight, gram, SCHEMES["asymmetric"])
    found = []
    for sweeps in (1, 2, 4):
        monkeypatch.setattr(module, "SWEEPS", sweeps)
        found.append(objective(weight, refit_scales(weight, before, gram), gram))
    assert (found[1] <= found[0] * 1.0001 + 1e-12).all()
    assert (found[2] <= found[1] * 1.0001 + 1e-12).all()


def test_products_in_bfloat16_cost_little() -> None:
    case = make(5, 64, ["normal", "heavy"] * 4, "normal")
    weight, gram = case.weight.T.contiguous(), add_damping(case.gram)
    before = rounded_by("gptq", weight, gram, SCHEMES["asymmetric"])
    exact = objective(weight, refit_scales(weight, before, gram), gram).sum()
    rough = objective(weight, refit_scales(weight, before, gram, torch.bfloat16), gram).sum()
    assert rough < 1.03 * exact
