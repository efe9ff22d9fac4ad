"""Whether a part may be published: wholly on the NPU, without faults in the log, and near to its float."""

from __future__ import annotations

import math

from .measure import Measured, elsewhere

# The error's norm over the output's, against the float ONNX of the same weights.
TOLERANCES = {"fp16": 2e-3, "w4a16": 2e-3, "w8a8": 0.2}


def refused(precision: str, measured: Measured) -> str | None:
    """Why a part is not published, or None."""
    report = measured.report
    if not report.layers:
        return "the toolkit's log has no table of layers"
    if report.elsewhere:
        return f"{len(report.elsewhere)} operators do not run on the NPU ({elsewhere(report.elsewhere)})"
    if report.faults:
        return f"the toolkit's log says: {report.faults[0]}"
    if precision == "w8a8" and not any(layer.dtype == "INT8" for layer in report.layers):
        return "no layer can be rounded to 8 bits without losing too much"
    if math.isnan(measured.relative):
        return "the simulated output is not a number, so something overflows float16"
    if measured.relative > TOLERANCES[precision]:
        return f"the simulated error is {measured.relative:.2g}, where {TOLERANCES[precision]:.2g} is allowed"
    return None
