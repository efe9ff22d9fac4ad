"""Whether a part may be published: wholly on the NPU, without faults in the log, and near to its float."""

from __future__ import annotations

import math

from .simulation import BuildMeasurement, format_layers

# The error's norm over the output's, against the float ONNX of the same weights.
MAX_RELATIVE_ERROR = {"fp16": 2e-3, "w4a16": 2e-3, "w8a8": 0.2}


def get_rejection_reason(precision: str, measurement: BuildMeasurement) -> str | None:
    """Why a part is not published, or None."""
    report = measurement.build_log
    if not report.layers:
        return "the toolkit's log has no table of layers"
    if report.layers_not_on_npu:
        return f"{len(report.layers_not_on_npu)} operators do not run on the NPU ({format_layers(report.layers_not_on_npu)})"
    if report.errors:
        return f"the toolkit's log says: {report.errors[0]}"
    if precision == "w8a8" and not any(layer.dtype == "INT8" for layer in report.layers):
        return "no layer can be rounded to 8 bits without losing too much"
    if math.isnan(measurement.relative_error):
        return "the simulated output is not a number, so something overflows float16"
    if measurement.relative_error > MAX_RELATIVE_ERROR[precision]:
        return f"the simulated error is {measurement.relative_error:.2g}, where {MAX_RELATIVE_ERROR[precision]:.2g} is allowed"
    return None
