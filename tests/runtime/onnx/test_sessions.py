"""Sessions on small graphs made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from edgepress.common.errors import UserError
from edgepress.runtime.onnx.sessions import SessionPool


def graph(path: Path, dtype: int) -> Path:
    """Adds two inputs."""
    ports = [helper.make_tensor_value_info(name, dtype, ["n"]) for name in ("a", "b", "sum")]
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"])]
    made = helper.make_graph(nodes, "sum", ports[:2], ports[2:])
    save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    types = {"single": TensorProto.FLOAT, "half": TensorProto.FLOAT16, "whole": TensorProto.INT64}
    return {name: graph(tmp_path / f"{name}.onnx", dtype) for name, dtype in types.items()}


def test_floats_are_cast_to_what_the_graph_takes_and_back(files: dict[str, Path]) -> None:
    run, ones = SessionPool(files), np.ones(3, np.float32)
    for name in ("single", "half"):
        found = run(name, {"a": ones, "b": 2 * ones})
        assert found.dtype == np.float32
        assert found.tolist() == [3, 3, 3]


def test_whole_numbers_stay_so(files: dict[str, Path]) -> None:
    numbers = np.array([2**24 + 1])
    assert SessionPool(files)("whole", {"a": numbers, "b": 0 * numbers}).tolist() == [2**24]  # as float32


@pytest.mark.parametrize(("keep", "expected"), [(True, ("single", "half")), (False, ("half",))])
def test_graphs_are_kept_or_there_one_at_a_time(files: dict[str, Path], keep: bool, expected: tuple[str, ...]) -> None:
    run, ones = SessionPool(files, keep), np.ones(3, np.float32)
    assert run.loaded_graphs() == ()
    for name in ("single", "single", "half"):
        run(name, {"a": ones, "b": ones})
    assert run.loaded_graphs() == expected


def test_an_unknown_provider_is_answered_with_those_there_are(files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"no MagicExecutionProvider; it has .*CPUExecutionProvider"):
        SessionPool(files, providers=["MagicExecutionProvider"])


def test_a_graph_that_is_not_there_is_named(files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"no graph 'other', only single, half, whole"):
        SessionPool(files)("other", {})


def test_a_damaged_graph_is_named(files: dict[str, Path]) -> None:
    files["single"].write_bytes(b"not a graph")
    with pytest.raises(UserError, match=r"single\.onnx cannot be loaded"):
        SessionPool(files)("single", {})


def test_faults_of_a_run_are_sentences(files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"single\.onnx cannot be run \(.*Invalid rank.*\); export the artifact again"):
        SessionPool(files)("single", {"a": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)})


def test_too_little_memory_is_said(tmp_path: Path) -> None:
    ports = [helper.make_tensor_value_info(*port) for port in (("a", 1, [1]), ("size", 7, [1]), ("wide", 1, ["n"]))]
    made = helper.make_graph([helper.make_node("Expand", ["a", "size"], ["wide"])], "wide", ports[:2], ports[2:])
    save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "wide.onnx")
    with pytest.raises(
        UserError, match=r"wide\.onnx cannot be run, as there is too little memory; give a smaller --size"
    ):
        SessionPool({"wide": tmp_path / "wide.onnx"})("wide", {"a": np.ones(1, np.float32), "size": np.array([2**50])})


def test_weights_that_are_gone_are_named(tmp_path: Path) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("a", "sum")]
    weight = TensorProto(name="b", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="gone.safetensors")
    made = helper.make_graph([helper.make_node("Add", ["a", "b"], ["sum"])], "sum", ports[:1], ports[1:], [weight])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (tmp_path / "sum.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"sum\.onnx cannot be loaded \(.*gone\.safetensors.*\); export"):
        SessionPool({"sum": tmp_path / "sum.onnx"})("sum", {"a": np.ones(3, np.float32)})
