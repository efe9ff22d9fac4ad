"""Products that are summed in float16: against exact sums by hand, and in graphs whose sums overflow or do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save

from edgepress.export.verification.fp16_sums import Fp16Sums, measure_fp16_sums, sum_in_fp16

HALF = TensorProto.FLOAT16


def save_products(folder: Path, *weights: NDArray[np.float16]) -> Path:
    """Saves y0 = x @ w0, y1 = x @ w1, … in float16."""
    ports = [helper.make_tensor_value_info(name, HALF, None) for name in ("x", *(f"y{n}" for n in range(len(weights))))]
    nodes = [helper.make_node("MatMul", ["x", f"w{n}"], [f"y{n}"]) for n in range(len(weights))]
    tensors = [numpy_helper.from_array(weight, f"w{n}") for n, weight in enumerate(weights)]
    graph = helper.make_graph(nodes, "products", ports[:1], ports[1:], tensors)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "products.onnx")
    return folder / "products.onnx"


def test_small_terms_vanish_in_a_large_sum() -> None:
    """2048 + 1 is 2048 in float16: of 4,000 ones, the first 2,048 count."""
    assert sum_in_fp16(np.ones((1, 4000), np.float16), np.ones((4000, 1), np.float16)).item() == 2048
    assert sum_in_fp16(np.ones((1, 2048), np.float16), np.ones((2048, 1), np.float16)).item() == 2048


def test_a_term_is_rounded_together_with_its_sum() -> None:
    left = np.array([[1, 0.0999755859375]], np.float16)
    right = np.array([[1], [0.01]], np.float16)
    exact = 1 + float(left[0, 1]) * float(right[1, 0])
    assert sum_in_fp16(left, right).item() == np.float16(exact)


def test_a_partial_sum_that_overflows_is_found(tmp_path: Path) -> None:
    """The sum itself, 0, does not overflow, and so x86 gives it."""
    weight = np.repeat(np.array([[600], [-600]], np.float16), 200, axis=0)
    x = np.full((1, 400), 1, np.float16)
    file = save_products(tmp_path, weight)
    assert measure_fp16_sums(file, {"x": x}) == Fp16Sums("y0", 400, None)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_the_product_that_loses_most_is_returned(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    mixed = random.standard_normal((2560, 80)).astype(np.float16)
    positive = np.abs(mixed)
    sums = measure_fp16_sums(save_products(tmp_path, mixed, positive), {"x": np.abs(mixed.T[:3])})
    assert sums is not None
    assert (sums.product, sums.length) == ("y1", 2560)
    assert sums.relative_error == pytest.approx(0.04, abs=0.03)  # 4 % under emulation of the processor (docs/onnx.md)


def save_product(folder: Path, operator: str, weight: NDArray[np.float16], **attributes: object) -> Path:
    """Saves y = operator(x, w) in float16."""
    ports = [helper.make_tensor_value_info(name, HALF, None) for name in "xy"]
    node = helper.make_node(operator, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph([node], operator, ports[:1], ports[1:], [numpy_helper.from_array(weight, "w")])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "product.onnx")
    return folder / "product.onnx"


def sum_windows(x: NDArray[np.float16], w: NDArray[np.float16], options: dict[str, Any]) -> NDArray[np.float16]:
    """A convolution in loops: every sum in float16, all channels of a point before the next point."""
    pads, strides, dilations, groups = (options[name] for name in ("pads", "strides", "dilations", "group"))
    x = np.pad(x, [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])])
    outputs, channels, *kernel = w.shape
    heights, widths = (
        (x.shape[2 + axis] - dilations[axis] * (kernel[axis] - 1) - 1) // strides[axis] + 1 for axis in (0, 1)
    )
    y = np.zeros((len(x), outputs, heights, widths), np.float16)
    for image, output, row, column in np.ndindex(*y.shape):
        first, total = output // (outputs // groups) * channels, np.float16(0)
        for down, right, channel in np.ndindex(*kernel, channels):
            value = x[
                image,
                first + channel,
                row * strides[0] + down * dilations[0],
                column * strides[1] + right * dilations[1],
            ]
            term = np.float64(value) * np.float64(w[output, channel, down, right])
            total = np.float16(np.float64(total) + term)
        y[image, output, row, column] = total
    return y


@pytest.mark.parametrize(
    "options",
    [
        {"pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [1, 1], "group": 1},
        {"pads": [0, 1, 1, 0], "strides": [2, 2], "dilations": [1, 1], "group": 1},
        {"pads": [2, 1, 2, 1], "strides": [1, 2], "dilations": [2, 1], "group": 1},
    ],
)
def test_a_convolution_loses_what_loops_lose(tmp_path: Path, options: dict[str, Any]) -> None:
    """Its windows are few, so that all are measured."""
    random = np.random.default_rng(0)
    x = (random.standard_normal((1, 40, 2, 3)) + 1).astype(np.float16)
    w = (random.standard_normal((3, 40, 3, 3)) + 1).astype(np.float16)
    exact = torch.nn.functional.conv2d(
        torch.nn.functional.pad(torch.from_numpy(x).double(), [options["pads"][index] for index in (1, 3, 0, 2)]),
        torch.from_numpy(w).double(),
        stride=options["strides"],
        dilation=options["dilations"],
    ).numpy()
    assert exact[0, 0].size <= 8
    expected = np.abs(sum_windows(x, w, options) - exact).max() / np.abs(exact).max()
    sums = measure_fp16_sums(save_product(tmp_path, "Conv", w, **options), {"x": x})
    assert sums is not None
    assert (sums.product, sums.length) == ("y", 360)
    assert sums.relative_error == pytest.approx(expected, rel=1e-9)


def test_of_groups_the_one_with_the_largest_weights_is_measured(tmp_path: Path) -> None:
    """Of 4,000 ones, float16 counts 2,048; the other group has zeros."""
    w = np.stack([np.zeros((4000, 1, 1)), np.ones((4000, 1, 1))]).astype(np.float16)
    sums = measure_fp16_sums(save_product(tmp_path, "Conv", w, group=2), {"x": np.ones((1, 8000, 4, 5), np.float16)})
    assert sums == Fp16Sums("y", 4000, pytest.approx((4000 - 2048) / 4000))


def test_a_convolution_whose_partial_sums_overflow_is_found(tmp_path: Path) -> None:
    w = np.repeat(np.array([600, -600], np.float16), 200).reshape(1, 400, 1)
    assert measure_fp16_sums(save_product(tmp_path, "Conv", w), {"x": np.ones((1, 400, 6), np.float16)}) == Fp16Sums(
        "y", 400, None
    )


@pytest.mark.parametrize(("trans_a", "trans_b"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_gemm_is_measured_as_the_matmul_of_its_transposed_operands(
    tmp_path: Path, trans_a: int, trans_b: int
) -> None:
    random = np.random.default_rng(0)
    x, w = (np.abs(random.standard_normal(shape)).astype(np.float16) for shape in ((4, 700), (700, 9)))
    expected = measure_fp16_sums(save_product(tmp_path, "MatMul", w), {"x": x})
    file = save_product(tmp_path, "Gemm", w.T.copy() if trans_b else w, transA=trans_a, transB=trans_b)
    assert measure_fp16_sums(file, {"x": x.T.copy() if trans_a else x}) == expected


def test_a_graph_in_float32_has_no_such_sums(tmp_path: Path) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ports[:1], ports[1:], [weight])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "g.onnx")
    assert measure_fp16_sums(tmp_path / "g.onnx", {"x": np.ones((1, 4), np.float32)}) is None
