"""Errors of known outputs, and the limits from which on nothing is published."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgepress.common.errors import UserError
from edgepress.export.verification.parity import (
    INT8_TOLERANCE,
    OrtRunner,
    OutputError,
    Parity,
    Tolerance,
    compute_error,
    measure_errors,
    measure_parity,
    require_parity,
)
from edgepress.models.base.reference import GoldenIO
from edgepress.numerics.psnr import compute_psnr

VALUES = st.lists(st.integers(-64, 64), min_size=3, max_size=3).map(lambda values: np.array(values, np.float32) / 8)


@pytest.fixture
def runner(tmp_path: Path) -> OrtRunner:
    """Two graphs: `double` returns 2x, and `both` returns -x and |x|."""
    nodes = {
        "double": [helper.make_node("Add", ["x", "x"], ["y"])],
        "both": [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Abs", ["x"], ["z"])],
    }
    for name, operators in nodes.items():
        ports = [helper.make_tensor_value_info(port, TensorProto.FLOAT, [2]) for port in "xyz"]
        graph = helper.make_graph(operators, name, ports[:1], ports[1 : 1 + len(operators)])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, str(tmp_path / f"{name}.onnx"))
    return OrtRunner({name: tmp_path / f"{name}.onnx" for name in nodes})


def make_golden(graph: str, x: list[float], **outputs: list[float]) -> GoldenIO:
    arrays = {name: np.array(values, np.float32) for name, values in {"x": x, **outputs}.items()}
    return GoldenIO(graph, {"x": arrays.pop("x")}, arrays)


# ---------------------------------------------------------------- errors


def test_an_error_is_relative_to_the_largest_value_of_the_reference() -> None:
    error = compute_error(np.array([1.0, -4.5], np.float32), np.array([1.25, -5.0], np.float32))
    assert (error.max_abs, error.relative) == (0.5, 0.1)


@given(VALUES, VALUES, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_relative_error_is_that_of_any_unit(output: np.ndarray, reference: np.ndarray, factor: float) -> None:
    error = compute_error(output, reference)
    scaled = compute_error(output * np.float32(factor), reference * np.float32(factor))
    assert scaled.relative == pytest.approx(error.relative)
    assert compute_error(reference, reference) == OutputError(0.0, 0.0)


def test_a_reference_of_zeros_is_reached_exactly_or_not_at_all() -> None:
    zeros = np.zeros(3, np.float32)
    assert compute_error(zeros, zeros) == OutputError(0.0, 0.0)
    assert compute_error(zeros + np.float32(1e-6), zeros).relative == math.inf
    assert math.isnan(compute_error(zeros + np.float32(np.nan), zeros).relative)


def test_nan_and_other_shapes_are_no_small_errors() -> None:
    reference = np.ones(2, np.float32)
    for output, expected in ((np.array([1, np.nan], np.float32), reference), (reference, reference * np.nan)):
        assert math.isnan(compute_error(output, expected).relative)
    with pytest.raises(ValueError, match=r"has the shape \(1, 2\), torch's \(2,\)"):
        compute_error(reference[None], reference)


def test_a_graph_has_the_error_of_its_worst_output_and_input(runner: OrtRunner) -> None:
    goldens = [
        make_golden("double", [1, 2], y=[2, 4]),
        make_golden("both", [-1, 3], y=[1, -3], z=[1, 4]),  # |3| instead of 4
        make_golden("double", [1, 2], y=[2, 5]),  # 4 instead of 5
        make_golden("double", [1, 1], y=[2, 2]),
    ]
    errors = measure_errors(goldens, runner)
    assert {name: (error.max_abs, error.relative) for name, error in errors.items()} == {
        "both": (1.0, 0.25),
        "double": (1.0, 0.2),
    }
    assert measure_parity(goldens, None, runner) == Parity(errors, None, image_compared=False)


def test_nan_is_the_worst_of_all(runner: OrtRunner) -> None:
    goldens = [make_golden("double", [math.nan, 2], y=[2, 4]), make_golden("double", [1, 2], y=[2, 9])]
    for order in (goldens, goldens[::-1]):
        assert math.isnan(measure_errors(order, runner)["double"].relative)


def test_a_parity_prints_every_graph_and_the_image() -> None:
    errors = {"encoder": OutputError(0.5, 0.25), "decoder": OutputError(1e-6, 2e-7)}
    lines = str(Parity(errors, 47.51)).splitlines()
    assert [line.split() for line in lines[1:3]] == [["encoder", "0.5", "0.25"], ["decoder", "1e-06", "2e-07"]]
    assert lines[-1] == "image: 47.5 dB PSNR"
    assert str(Parity(errors, None)).endswith("image: identical")
    assert "image: not compared" in str(Parity(errors, None, image_compared=False))


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(("relative", "psnr"), [(float("nan"), 60.0), (2e-4, 60.0), (1e-6, 40.0), (1e-6, float("nan"))])
def test_deviations_are_rejected(relative: float, psnr: float) -> None:
    with pytest.raises(UserError, match="nothing was published"):
        require_parity(Parity({"a": OutputError(1.0, relative)}, psnr), Tolerance(1e-4, 45.0))


def test_an_image_of_noise_is_rejected_even_for_int8_products() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    for value in (0, 128, 255):
        psnr = compute_psnr(np.full_like(noise, value), noise)
        with pytest.raises(UserError, match="less than the required 15 dB, so nothing was published"):
            require_parity(Parity({}, psnr), INT8_TOLERANCE)


def test_identical_images_are_accepted() -> None:
    require_parity(Parity({"a": OutputError(0.0, 0.0)}, None), Tolerance(1e-4, 45.0))
