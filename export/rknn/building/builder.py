"""The parts built for the NPU, each in the lowest precision in which it is near enough to its float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ....common.errors import UserError
from ....models.base.npu import GraphPart
from ....runtime.rknn.exported import BuildConfig
from ....runtime.rknn.toolkit import Toolkit
from .acceptance import get_rejection_reason
from .precision import BuildOption, select_float_layers
from .simulation import BuildMeasurement, BuildRequest, analyze_layers, build_and_simulate


@dataclass(frozen=True)
class Rejection:
    """A precision that a part was not published in, and why."""

    precision: str
    reason: str


@dataclass(frozen=True)
class BuiltPart:
    """A part that may be published: how it was built, and what was measured of it."""

    precision: str
    build_config: BuildConfig
    measurement: BuildMeasurement
    rejections: tuple[Rejection, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """In pipeline.json's words."""
        return {"precision": self.precision, "refused": [asdict(each) for each in self.rejections]}


def build_part(
    toolkit: Toolkit,
    part: GraphPart,
    options: Sequence[BuildOption],
    make_request: Callable[[BuildOption], BuildRequest],
    always_analyze: bool,
) -> BuiltPart:
    """Builds a part in the first way that is good enough.

    Args:
        files: of a way, as what it reads is of that way's weights.
        is_small: whether layers are looked at even where the part is good enough.

    Raises:
        UserError: none is.
    """
    rejections: list[Rejection] = []
    for way in options:
        recipe, measured = build_with_float_layers(toolkit, part, way, make_request(way), always_analyze)
        reason = get_rejection_reason(way.precision, measured)
        if reason is None:
            return BuiltPart(way.precision, recipe, measured, tuple(rejections))
        rejections.append(Rejection(way.precision, reason))
    said = "; ".join(f"{each.precision}: {each.reason}" for each in rejections)
    raise UserError(f"The part {part.name} is refused ({said}); nothing was published.")


def build_with_float_layers(
    toolkit: Toolkit, part: GraphPart, option: BuildOption, request: BuildRequest, always_analyze: bool
) -> tuple[BuildConfig, BuildMeasurement]:
    """Builds a part, and once more with layers in float16 where the analysis names some that lose much by rounding."""
    recipe, measured = (
        option.build_config,
        _measure_build(toolkit, part, option, option.build_config, request, always_analyze),
    )
    float_layers = select_float_layers(option.precision, measured.layer_errors)
    if float_layers:
        recipe = replace(recipe, float_layers=float_layers)
        measured = _measure_build(toolkit, part, option, recipe, request, always_analyze)
    return recipe, measured


def _measure_build(
    toolkit: Toolkit,
    part: GraphPart,
    option: BuildOption,
    build_config: BuildConfig,
    request: BuildRequest,
    always_analyze: bool,
) -> BuildMeasurement:
    measured = build_and_simulate(toolkit, part.name, request, build_config)
    if always_analyze or (build_config.is_quantized and get_rejection_reason(option.precision, measured)):
        measured = replace(measured, layers=analyze_layers(toolkit, part.name, request.golden_samples[0].inputs))
    return measured
