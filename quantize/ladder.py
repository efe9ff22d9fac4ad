"""The ladder: rounding alone, then one step after another, each kept for an output only where it loses less there.

| step  | what it does                                                                             | where        |
| ----- | ---------------------------------------------------------------------------------------- | ------------ |
| scale | AWQ: input channels that matter are scaled up before rounding (folded, so a block's own) | awq, solve   |
| clip  | AWQ: each group's largest |w| clipped                                                    | awq          |
| range | each group's range shortened where errors, weighed by H, say so                          | ranges       |
| gptq  | rounding with error feedback, on the grids as they are                                   | gptq         |
| refit | scales by least squares, then codes one by one, each a step down                         | refit        |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from ..grid import Codes, Grid
from ..memory import release
from ..recipe import Scheme, Step
from .awq import clips, search_clip
from .gptq import Factor, Rounded, damped, factorize, round_with_feedback
from .ranges import group_grid, search_range
from .refit import refit
from .statistics import output_errors

OUTPUTS = 4096  # of a weight, worked on at once: memory does not grow with the layer's height


@dataclass(frozen=True)
class Input:
    """What one or more linears read: H (in, in) float32, and what is made of it once for all of them.

    products: the dtype of large products, float32 or, several times as fast where the processor has it, bfloat16.
    """

    gram: Tensor
    scheme: Scheme
    products: torch.dtype = torch.float32

    @property
    def group_size(self) -> int:
        return self.scheme.group_of(len(self.gram))

    @cached_property
    def rough(self) -> Tensor:
        """H in the dtype of products."""
        return self.gram.to(self.products)

    @cached_property
    def damped(self) -> Tensor:
        return damped(self.gram)

    @cached_property
    def factor(self) -> Factor:
        return factorize(self.damped, self.group_size, self.products)


@dataclass
class Climbed:
    """A quantized linear: its codes, and the output error (mean squared, absolute) after each step."""

    codes: Codes
    power: float
    errors: dict[str, float] = field(default_factory=dict)


def climb(linear: str, weight: Tensor, source: Input, steps: Sequence[Step]) -> Climbed:
    """Quantizes a weight (out, in) of the linear with that name, by rounding and then the steps."""
    parts = [_climb_part(linear, part.float().T.contiguous(), source, steps) for part in weight.split(OUTPUTS)]
    release()
    grids = [codes.grid for codes, _, _ in parts]
    grid = Grid(torch.cat([g.scales for g in grids]), torch.cat([g.zeros for g in grids]), *grids[0][2:])
    errors = {name: sum(part[name] for _, _, part in parts) for name in parts[0][2]}
    return Climbed(Codes(torch.cat([codes.codes for codes, _, _ in parts]), grid), sum(p for _, p, _ in parts), errors)


def _climb_part(
    linear: str, weight: Tensor, source: Input, steps: Sequence[Step]
) -> tuple[Codes, float, dict[str, float]]:
    """Some outputs of a linear, (in, out): codes, output power, and the error after each step."""
    best = _round(weight, source)
    least = _errors(weight, best, source)
    errors = {"rtn": float(least.sum())}
    for step in steps:
        if step == "scale" or (step == "clip" and not clips(linear)):
            continue
        tried = _take(step, weight, best, source)
        found = _errors(weight, tried, source)
        best = _choose(found < least, tried, best)
        least = torch.where(found < least, found, least)
        errors[step] = float(least.sum())
    codes = Codes(best.codes.T.contiguous(), best.grid._replace(scales=best.grid.scales.T, zeros=best.grid.zeros.T))
    return codes, float(output_errors(weight, source.rough).sum()), errors


def _take(step: Step, weight: Tensor, best: Rounded, source: Input) -> Rounded:
    """One step up from the best so far."""
    scheme, size = source.scheme, source.group_size
    if step == "clip":
        grid = search_clip(weight.T, source.gram, scheme)
        return nearest(weight, grid._replace(scales=grid.scales.T, zeros=grid.zeros.T))
    if step == "range":
        starts = range(0, len(weight), size)
        blocks = [source.damped[start : start + size, start : start + size] for start in starts]
        grids = [search_range(weight[s : s + size], block, scheme) for s, block in zip(starts, blocks, strict=True)]
        return nearest(weight, stacked(grids))
    if step == "gptq":
        return round_with_feedback(weight, source.factor, best.grid)
    return refit(weight, best, source.damped, source.products)


def _round(weight: Tensor, source: Input) -> Rounded:
    """Rounding alone, on min-max grids."""
    return nearest(weight, stacked([group_grid(part, source.scheme) for part in weight.split(source.group_size)]))


def nearest(weight: Tensor, grid: Grid) -> Rounded:
    """The nearest codes of a weight (in, out) on a grid (groups, out)."""
    groups = weight.reshape(len(grid.scales), -1, weight.shape[1])
    codes = torch.round(groups / grid.scales[:, None]) + grid.zeros[:, None]
    return Rounded(codes.clamp_(grid.lowest, grid.highest).to(torch.uint8).reshape(weight.shape), grid)


def value_of(rounded: Rounded) -> Tensor:
    """The weight (in, out) float32 that codes stand for."""
    codes, grid = rounded
    groups = codes.reshape(len(grid.scales), -1, codes.shape[1]).float()
    return groups.sub_(grid.zeros[:, None]).mul_(grid.scales[:, None]).reshape(codes.shape)


def stacked(grids: Sequence[Grid]) -> Grid:
    """Grids of single groups, (out,) each, as one of (groups, out)."""
    return grids[0]._replace(
        scales=torch.stack([grid.scales for grid in grids]), zeros=torch.stack([grid.zeros for grid in grids])
    )


def _errors(weight: Tensor, rounded: Rounded, source: Input) -> Tensor:
    return output_errors(value_of(rounded).sub_(weight), source.rough)


def _choose(better: Tensor, new: Rounded, old: Rounded) -> Rounded:
    """Output by output the new one where it is better, (out,) bool."""
    scales, zeros = (torch.where(better, a, b) for a, b in zip(new.grid[:2], old.grid[:2], strict=True))
    grid = new.grid._replace(scales=scales, zeros=zeros)
    return Rounded(torch.where(better, new.codes, old.codes), grid)
