"""Which precisions a part may be built in, and which of its layers stay in float16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....recipes.schema import Scheme
from ....runtime.rknn.exported import BuildConfig
from .simulation import LayerError

# Converts the output of a layer for the next one; its error is that of the layer.
CONVERSION_OPERATOR = "exDataConvert"
# Layers with at least this error (1 - cosine, for the layer alone) stay in float16. With 4-bit weights it is the
# smallest that the analysis can show: solved weights are rounded exactly, so only linears that were not solved differ.
MIN_SENSITIVE_ERROR = {"w4a16": 1e-5, "w8a8": 2.5e-4}


@dataclass(frozen=True)
class BuildOption:
    """A precision, and how the toolkit builds in it."""

    precision: str
    build_config: BuildConfig


def list_build_options(precision: str, target: str, scheme: Scheme | None) -> list[BuildOption]:
    """Lists the options to build a part, the preferred one first.

    Args:
        precision: Precision of the recipe; "auto" prefers that of the scheme and falls back to fp16.
        target: Processor to build for.
        scheme: How the weights of the part were quantized; None: they were not.
    """
    platform = {"target_platform": target}
    fp16 = BuildOption("fp16", BuildConfig(platform))
    if scheme is None or precision == "fp16":
        return [fp16]
    if scheme.bits == 8:
        name, config = "w8a8", {"quantized_dtype": "w8a8", "quantized_algorithm": "normal"}
    else:
        method = "channel" if scheme.group_size == "channel" else f"group{scheme.group_size}"
        name, config = "w4a16", {"quantized_dtype": "w4a16", "quantized_method": method}
    quantized = BuildOption(name, BuildConfig(platform | config, is_quantized=True))
    return [quantized, fp16] if precision == "auto" else [quantized]


def select_float_layers(precision: str, layer_errors: Sequence[LayerError]) -> tuple[str, ...]:
    """Selects the layers that should stay in float16, those with the largest errors first."""
    threshold = MIN_SENSITIVE_ERROR.get(precision, float("inf"))
    return tuple(
        layer.name for layer in layer_errors if layer.error >= threshold and layer.operator != CONVERSION_OPERATOR
    )
