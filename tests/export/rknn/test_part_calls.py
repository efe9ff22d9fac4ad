"""Which calls of a part are golden, and the files that a board's script reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgepress.export.rknn.building.simulation import GoldenSample
from edgepress.export.rknn.part_calls import make_random_inputs, pick_evenly, rerun_calls, save_first_calls

X, Y = np.array([1.0, 2.0], np.float32), np.array([3.0, 5.0], np.float32)


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """An ONNX file that returns a · b."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "aby"]
    graph = helper.make_graph([helper.make_node("Mul", ["a", "b"], ["y"])], "product", ports[:2], ports[2:])
    file = tmp_path / "product.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(file))
    return file


@given(st.integers(1, 100))
def test_the_first_and_the_last_call_are_kept_and_one_between_them(count: int) -> None:
    kept_calls = pick_evenly(range(count))
    assert len(kept_calls) == len(set(kept_calls)) == min(3, count)
    assert (kept_calls[0], kept_calls[-1]) == (0, count - 1)
    assert kept_calls == sorted(kept_calls)
    if count > 2:
        assert abs(kept_calls[1] - (count - 1) / 2) <= 0.5


def test_a_file_holds_the_first_call_with_inputs_in_their_order(tmp_path: Path) -> None:
    calls = {"part": [GoldenSample({"b": X, "a": Y}, X * Y), GoldenSample({"b": Y, "a": Y}, Y * Y)]}
    save_first_calls(calls, tmp_path / "golden")
    (file,) = (tmp_path / "golden").iterdir()
    assert file.name == "part.npz"
    with np.load(file) as arrays:
        assert list(arrays) == ["in.b", "in.a", "out"]
        assert arrays["in.b"].tolist() == X.tolist()
        assert arrays["out"].tolist() == (X * Y).tolist()


def test_calls_that_are_run_again_have_the_outputs_of_the_new_file(product: Path) -> None:
    calls = [GoldenSample({"a": X, "b": Y}, np.zeros(2, np.float32)), GoldenSample({"a": Y, "b": Y}, X)]
    again = rerun_calls(calls, "product", product)
    assert [sample.output.tolist() for sample in again] == [[3, 10], [9, 25]]
    assert [sample.inputs for sample in again] == [call.inputs for call in calls]


def test_random_inputs_have_the_names_and_shapes_of_the_file(product: Path) -> None:
    inputs = make_random_inputs(product)
    assert {name: (array.shape, array.dtype) for name, array in inputs.items()} == dict.fromkeys(
        "ab", ((2,), np.float32)
    )
    again = make_random_inputs(product)
    assert all(np.array_equal(again[name], array) for name, array in inputs.items())
    assert not np.array_equal(inputs["a"], inputs["b"])
