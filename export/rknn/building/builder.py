"""Builds a part in the first precision whose simulated output is close enough to the float one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ....common.errors import UserError
from ....models.base.npu import GraphPart
from ....runtime.rknn.exported import BuildConfig
from ....runtime.rknn.toolkit import Toolkit
from .acceptance import get_rejection_reason
from .precision import BuildOption, select_float_layers
from .simulation import BuildMeasurement, BuildRequest, analyze_layers, build_and_simulate


@dataclass(frozen=True)
class Rejection:
    """A precision that was rejected for a part, and why."""

    precision: str
    reason: str


@dataclass(frozen=True)
class BuiltPart:
    """A part that may be published.

    Attributes:
        precision: Its precision: "fp16", "w8a8" or "w4a16".
        build_config: How the toolkit built it.
        measurement: What was measured of it.
        rejections: Precisions that were rejected before.
    """

    precision: str
    build_config: BuildConfig
    measurement: BuildMeasurement
    rejections: tuple[Rejection, ...] = ()


def build_part(
    toolkit: Toolkit,
    part: GraphPart,
    options: Sequence[BuildOption],
    make_request: Callable[[BuildOption], BuildRequest],
    always_analyze: bool,
) -> BuiltPart:
    """Builds a part with the first option that is accepted.

    Args:
        toolkit: The toolkit that builds.
        part: The part to build.
        options: Options to try, in order.
        make_request: Returns what an option builds, since options may differ in weights.
        always_analyze: Whether to analyze layers even if the part is accepted.

    Raises:
        UserError: No option is accepted, or the toolkit fails.
    """
    rejections: list[Rejection] = []
    for option in options:
        config, measurement = build_with_float_layers(toolkit, part, option, make_request(option), always_analyze)
        reason = get_rejection_reason(option.precision, measurement)
        if reason is None:
            return BuiltPart(option.precision, config, measurement, tuple(rejections))
        rejections.append(Rejection(option.precision, reason))
    reasons = "; ".join(f"{rejection.precision}: {rejection.reason}" for rejection in rejections)
    raise UserError(
        f"The part {part.name} was rejected ({reasons}), so nothing was published. Try another --precision."
    )


def build_with_float_layers(
    toolkit: Toolkit, part: GraphPart, option: BuildOption, request: BuildRequest, always_analyze: bool
) -> tuple[BuildConfig, BuildMeasurement]:
    """Builds a part, and builds it again with its sensitive layers in float16 if the analysis finds some."""
    config = option.build_config
    measurement = _measure_build(toolkit, part, option.precision, config, request, always_analyze)
    float_layers = select_float_layers(option.precision, measurement.layer_errors)
    if float_layers:
        config = replace(config, float_layers=float_layers)
        measurement = _measure_build(toolkit, part, option.precision, config, request, always_analyze)
    return config, measurement


def _measure_build(
    toolkit: Toolkit, part: GraphPart, precision: str, config: BuildConfig, request: BuildRequest, always_analyze: bool
) -> BuildMeasurement:
    measurement = build_and_simulate(toolkit, part.name, request, config)
    is_accepted = get_rejection_reason(precision, measurement) is None
    if (is_accepted and always_analyze) or (not is_accepted and config.is_quantized):
        layer_errors = analyze_layers(toolkit, part.name, request.golden_samples[0].inputs)
        measurement = replace(measurement, layer_errors=layer_errors)
    return measurement
