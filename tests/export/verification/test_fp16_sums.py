"""Products that are summed in float16: against exact sums by hand, and in graphs whose sums overflow or do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
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


def test_a_graph_in_float32_has_no_such_sums(tmp_path: Path) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ports[:1], ports[1:], [weight])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "g.onnx")
    assert measure_fp16_sums(tmp_path / "g.onnx", {"x": np.ones((1, 4), np.float32)}) is None
