"""In which precisions a part may be built, and which of its layers stay in float16 where all others are rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....recipes.schema import Scheme
from ....runtime.rknn.exported import BuildConfig
from .simulation import LayerError

CONVERSION_OPERATOR = "exDataConvert"  # of a layer's output for the next one, which is as good as the layer
# 1 - cosine of a layer's output, by itself, from which it stays in float16. With 4-bit weights that is whatever the
# analysis can show: weights that we solved are rounded exactly, so what differs is a linear that we keep in floats.
MIN_SENSITIVE_ERROR = {"w4a16": 1e-5, "w8a8": 2.5e-4}


@dataclass(frozen=True)
class BuildOption:
    """A precision and how the toolkit is told to build in it."""

    precision: str
    build_config: BuildConfig


def list_build_options(precision: str, target: str, scheme: Scheme | None) -> list[BuildOption]:
    """Ways to build a part whose weights stand on a grid, the first choice first."""
    plain = {"target_platform": target}
    fp16 = BuildOption("fp16", BuildConfig(plain))
    if scheme is None or precision == "fp16":
        return [fp16]
    if scheme.bits == 8:
        name, config = "w8a8", {"quantized_dtype": "w8a8", "quantized_algorithm": "normal"}
    else:
        name, config = "w4a16", {"quantized_dtype": "w4a16", "quantized_method": get_quantized_method(scheme)}
    quantized = BuildOption(name, BuildConfig(plain | config, is_quantized=True))
    return [quantized, fp16] if precision == "auto" else [quantized]


def get_quantized_method(scheme: Scheme) -> str:
    """What the toolkit calls the groups that share a scale."""
    return "channel" if scheme.group_size == "channel" else f"group{scheme.group_size}"


def select_float_layers(precision: str, layer_errors: Sequence[LayerError]) -> tuple[str, ...]:
    """The layers that should stay in float16, the worst first."""
    least = MIN_SENSITIVE_ERROR.get(precision, float("inf"))
    return tuple(layer.name for layer in layer_errors if layer.error >= least and layer.operator != CONVERSION_OPERATOR)
