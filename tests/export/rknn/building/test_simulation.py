"""Measurements of a part: errors, the toolkit's analysis, and why a part is rejected."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from edgepress.export.rknn.building.acceptance import get_rejection_reason
from edgepress.export.rknn.building.build_log import BuildLog, BuiltLayer
from edgepress.export.rknn.building.simulation import BuildMeasurement, LayerError, compare_outputs, parse_layer_errors

ANALYSIS = """\
layer_name                                            simulator_error
                                                  entire              single
[Input] time                                 1.00000 | 0.00000   1.00000 | 0.00000
[Slice] slice_2_rs#3                          f_zero |  f_zero    f_zero |  f_zero
[Conv] linear-rs                             0.90000 | 0.01326   0.99700 | 0.01326
[exSwish] silu-rs                            0.99900 | 0.00275   0.98000 | 0.00228
[Conv] wide                                  0.77123 | 4355.105470.75000 | 4355.10547
[ConvMul] up-rs                                q_inf |   q_inf     q_inf |   q_inf
"""
GOOD = BuildMeasurement(BuildLog((BuiltLayer("Conv", "FLOAT16", "NPU", "a"),), 1, 1, ()), 1e-3, 1.0, (), 1.0, 1)
ON_CPU = BuildLog((BuiltLayer("Div", "FLOAT", "CPU", "d"), *GOOD.build_log.layers), 1, 1, ())


def test_outputs_are_compared_as_vectors() -> None:
    relative, cosine = compare_outputs(np.float32([[3, 4]]), np.float32([[3, 0]]))
    assert relative == pytest.approx(4 / 3)
    assert cosine == pytest.approx(3 / 5)
    assert math.isnan(compare_outputs(np.float32([np.nan]), np.float32([1]))[0])
    with pytest.raises(ValueError, match="returned shape"):
        compare_outputs(np.zeros((1, 2), np.float32), np.zeros(2, np.float32))


def test_layers_are_sorted_by_their_own_error() -> None:
    infinite, wide, first, second = parse_layer_errors(ANALYSIS)
    assert (infinite.name, infinite.error) == ("up-rs", 2)
    assert wide == LayerError("Conv", "wide", 0.25)
    assert (first.operator, first.name) == ("exSwish", "silu-rs")
    assert first.error == pytest.approx(0.02)
    assert second == LayerError("Conv", "linear-rs", pytest.approx(0.003))


@pytest.mark.parametrize(
    ("measurement", "reason"),
    [
        (replace(GOOD, relative_error=3e-3), "0.003, the limit is 0.002"),
        (replace(GOOD, relative_error=math.nan), "overflows float16"),
        (replace(GOOD, build_log=replace(GOOD.build_log, layers=())), "no table"),
        (replace(GOOD, build_log=replace(GOOD.build_log, errors=("E RKNN: Unkown op target: 0",))), "Unkown op target"),
        (replace(GOOD, build_log=ON_CPU), r"1 operators do not run on the NPU \(Div d\)"),
    ],
)
def test_a_part_is_rejected_with_the_reason(measurement: BuildMeasurement, reason: str) -> None:
    assert get_rejection_reason("fp16", GOOD) is None
    rejection = get_rejection_reason("fp16", measurement)
    assert rejection is not None
    assert re.search(reason, rejection)
