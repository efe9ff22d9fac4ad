"""The parts built for the NPU, each in the lowest precision in which it is near enough to its float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ...errors import UserError
from ...models.npu import Part
from ...runtime.rknn.manifest import Recipe
from ...runtime.rknn.toolkit import Toolkit
from .measure import Files, Measured, analyse, measure
from .verdict import refused
from .ways import Way, sensitive


@dataclass(frozen=True)
class Refusal:
    """A precision that a part was not published in, and why."""

    precision: str
    reason: str


@dataclass(frozen=True)
class Built:
    """A part that may be published: how it was built, and what was measured of it."""

    precision: str
    recipe: Recipe
    measured: Measured
    refusals: tuple[Refusal, ...] = ()

    def described(self) -> dict[str, Any]:
        """In pipeline.json's words."""
        return {"precision": self.precision, "refused": [asdict(each) for each in self.refusals]}


def built(toolkit: Toolkit, part: Part, choices: Sequence[Way], files: Callable[[Way], Files], is_small: bool) -> Built:
    """Builds a part in the first way that is good enough.

    Args:
        files: of a way, as what it reads is of that way's weights.
        is_small: whether layers are looked at even where the part is good enough.

    Raises:
        UserError: none is.
    """
    refusals: list[Refusal] = []
    for way in choices:
        recipe, measured = nearest(toolkit, part, way, files(way), is_small)
        reason = refused(way.precision, measured)
        if reason is None:
            return Built(way.precision, recipe, measured, tuple(refusals))
        refusals.append(Refusal(way.precision, reason))
    said = "; ".join(f"{each.precision}: {each.reason}" for each in refusals)
    raise UserError(f"The part {part.name} is refused ({said}); nothing was published.")


def nearest(toolkit: Toolkit, part: Part, way: Way, files: Files, is_small: bool) -> tuple[Recipe, Measured]:
    """Builds a part, and once more with layers in float16 where the analysis names some that lose much by rounding."""
    recipe, measured = way.recipe, _measured(toolkit, part, way, way.recipe, files, is_small)
    floats = sensitive(way.precision, measured.layers)
    if floats:
        recipe = replace(recipe, float_layers=floats)
        measured = _measured(toolkit, part, way, recipe, files, is_small)
    return recipe, measured


def _measured(toolkit: Toolkit, part: Part, way: Way, recipe: Recipe, files: Files, is_small: bool) -> Measured:
    measured = measure(toolkit, part.name, files, recipe)
    if is_small or (recipe.quantized and refused(way.precision, measured)):
        measured = replace(measured, layers=analyse(toolkit, part.name, files.goldens[0].inputs))
    return measured
