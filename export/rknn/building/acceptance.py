"""Whether a built part may be published: it runs on the NPU alone, builds without errors, and is close to its float."""

from __future__ import annotations

import math

from .simulation import BuildMeasurement, format_layers

# Norm of the error over that of the output, relative to the float ONNX of the same weights.
MAX_RELATIVE_ERROR = {"fp16": 2e-3, "w4a16": 2e-3, "w8a8": 0.2}


def get_rejection_reason(precision: str, measurement: BuildMeasurement) -> str | None:
    """Returns why a part may not be published, or None if it may."""
    log = measurement.build_log
    if not log.layers:
        return "the toolkit's log has no table of layers"
    if log.layers_not_on_npu:
        return f"{len(log.layers_not_on_npu)} operators do not run on the NPU ({format_layers(log.layers_not_on_npu)})"
    if log.errors:
        return f"the toolkit's log contains an error: {log.errors[0]}"
    if precision == "w8a8" and not any(layer.dtype == "INT8" for layer in log.layers):
        return "every layer loses too much in 8 bits"
    if math.isnan(measurement.relative_error):
        return "the simulated output is not finite, because something overflows float16"
    if measurement.relative_error > MAX_RELATIVE_ERROR[precision]:
        limit = MAX_RELATIVE_ERROR[precision]
        return f"the simulated error is {measurement.relative_error:.2g}, the limit is {limit:.2g}"
    return None
