"""Sessions of small graphs made by hand."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from edgepress.common.errors import UserError
from edgepress.runtime.onnx import sessions
from edgepress.runtime.onnx.sessions import SessionPool, create_session, describe_session_options, resolve_providers
from edgepress.runtime.thread_settings import ThreadSettings


def save_sum_graph(path: Path, dtype: int) -> Path:
    """Saves a graph that adds two inputs."""
    ports = [helper.make_tensor_value_info(name, dtype, ["n"]) for name in ("a", "b", "sum")]
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"])]
    graph = helper.make_graph(nodes, "sum", ports[:2], ports[2:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def save_product_graph(path: Path) -> Path:
    """Saves a graph of two products, large enough for several threads."""
    types = (("a", ["n", "n"]), ("sum", []))
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in types]
    nodes = [
        helper.make_node("MatMul", ["a", "a"], ["b"]),
        helper.make_node("Sigmoid", ["b"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["d"]),
        helper.make_node("MatMul", ["d", "c"], ["e"]),
        helper.make_node("ReduceSum", ["e"], ["sum"], keepdims=0),
    ]
    graph = helper.make_graph(nodes, "products", ports[:1], ports[1:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def read_anonymous_memory() -> int:
    """The resident anonymous memory of this process, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    types = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64}
    return {name: save_sum_graph(tmp_path / f"{name}.onnx", dtype) for name, dtype in types.items()}


def test_floats_are_cast_to_the_dtype_of_the_graph_and_back(files: dict[str, Path]) -> None:
    run, ones = SessionPool(files), np.ones(3, np.float32)
    for name in ("float32", "float16"):
        output = run(name, {"a": ones, "b": 2 * ones})
        assert output.dtype == np.float32
        assert output.tolist() == [3, 3, 3]


def test_a_graph_that_takes_other_inputs_is_refused(files: dict[str, Path]) -> None:
    """Such as one graph in the place of another."""
    with pytest.raises(UserError, match=r"is no graph 'float32': it takes a, b instead of a, c\. Export the artifact"):
        SessionPool(files)("float32", {"a": np.ones(3), "c": np.ones(3)})


def test_integers_are_not_cast(files: dict[str, Path]) -> None:
    numbers = np.array([2**24 + 1])
    output = SessionPool(files)("int64", {"a": numbers, "b": 0 * numbers})
    assert output.tolist() == [2**24]  # only the output is cast, to float32


@pytest.mark.parametrize(("keep_loaded", "expected"), [(True, ("float32", "float16")), (False, ("float16",))])
def test_graphs_stay_loaded_or_one_is_loaded_at_a_time(
    files: dict[str, Path], keep_loaded: bool, expected: tuple[str, ...]
) -> None:
    run, ones = SessionPool(files, keep_loaded), np.ones(3, np.float32)
    assert run.loaded_graphs() == ()
    for name in ("float32", "float32", "float16"):
        run(name, {"a": ones, "b": ones})
    assert run.loaded_graphs() == expected


def test_unknown_provider_names_the_available_ones(files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"no execution provider 'Magic'\. Choose from .*CPU"):
        SessionPool(files, providers=["MagicExecutionProvider"])


@pytest.mark.parametrize("name", ["CPU", "cpu", "CPUExecutionProvider", "cpuexecutionprovider"])
def test_providers_have_short_names_in_any_case(files: dict[str, Path], name: str) -> None:
    run = SessionPool(files, providers=[name])
    run("float32", {"a": np.ones(1), "b": np.ones(1)})
    assert "CPUExecutionProvider" in run.engine


def test_missing_graph(files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"'unet' is not in pipeline\.json, which lists float32, float16, int64"):
        SessionPool(files)("unet", {})


def test_corrupt_graph(files: dict[str, Path]) -> None:
    files["float32"].write_bytes(b"not a graph")
    with pytest.raises(UserError, match=r"Cannot load .*float32\.onnx"):
        SessionPool(files)("float32", {})


def test_error_of_a_run_is_a_user_error(files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"Cannot run .*float32\.onnx \(.*Invalid rank.*\). Export the artifact again"):
        SessionPool(files)("float32", {"a": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)})


def test_out_of_memory(tmp_path: Path) -> None:
    ports = [helper.make_tensor_value_info(*port) for port in (("a", 1, [1]), ("size", 7, [1]), ("wide", 1, ["n"]))]
    graph = helper.make_graph([helper.make_node("Expand", ["a", "size"], ["wide"])], "wide", ports[:2], ports[2:])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "wide.onnx")
    run = SessionPool({"wide": tmp_path / "wide.onnx"})
    with pytest.raises(UserError, match=r"Cannot run .*wide\.onnx: not enough memory. Generate a smaller image"):
        run("wide", {"a": np.ones(1, np.float32), "size": np.array([2**50])})


def test_missing_weight_file(tmp_path: Path) -> None:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("a", "sum")]
    weight = TensorProto(name="b", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="missing.safetensors")
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["sum"])], "sum", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (tmp_path / "sum.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"Cannot load .*sum\.onnx \(.*missing\.safetensors.*\). Export"):
        SessionPool({"sum": tmp_path / "sum.onnx"})("sum", {"a": np.ones(3, np.float32)})


@pytest.mark.parametrize("accuracy_level", [0, 4])
def test_described_options_are_those_of_a_session(files: dict[str, Path], accuracy_level: int) -> None:
    options = create_session(files["float32"], accuracy_level=accuracy_level).get_session_options()
    described = describe_session_options(files.values(), accuracy_level)
    assert options.graph_optimization_level.name == described.graph_optimization_level
    assert {key: options.get_session_config_entry(key) for key in described.entries} == described.entries
    assert described.entries["session.qdq_matmulnbits_accuracy_level"] == str(accuracy_level)


@pytest.mark.parametrize("by_block", [False, True])
def test_golden_inputs_run_without_kleidiai(files: dict[str, Path], by_block: bool) -> None:
    """The entry is one of ONNX Runtime, which ignores those that it does not know."""
    options = create_session(files["float32"], by_block=by_block).get_session_options()
    key = "mlas.disable_kleidiai"
    if by_block:
        assert options.get_session_config_entry(key) == "1"
    else:
        with pytest.raises(RuntimeError, match=key):
            options.get_session_config_entry(key)
    (library,) = Path(ort_state.__file__).parent.glob("onnxruntime_pybind11_state*")
    assert key.encode() in library.read_bytes()


def test_graphs_of_two_exports_are_never_mixed(files: dict[str, Path]) -> None:
    run, ones = SessionPool(files, keep_loaded=False), np.ones(3, np.float32)
    run("float32", {"a": ones, "b": ones})
    new = save_sum_graph(files["float16"].with_name("new.onnx"), TensorProto.FLOAT16)
    new.replace(files["float16"])
    with pytest.raises(UserError, match=r"float16\.onnx was replaced since the artifact was opened\. Run the command"):
        run("float16", {"a": ones, "b": ones})


@pytest.mark.parametrize(
    ("available", "expected"),
    [
        (["AzureExecutionProvider", "CPUExecutionProvider"], ["CPU"]),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], ["CUDA", "CPU"]),
        (["CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"], ["Tensorrt", "CUDA", "CPU"]),
    ],
)
def test_auto_takes_what_there_is(available: list[str], expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions.onnxruntime, "get_available_providers", lambda: available)
    assert resolve_providers(["AUTO"]) == [f"{name}ExecutionProvider" for name in expected]
    with pytest.raises(UserError, match="no execution provider 'auto'"):
        resolve_providers(["auto", "CPU"])


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_cannot_be_loaded_is_named_once(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a Jetson whose build of ONNX Runtime does not find the libraries of CUDA."""
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(sessions.onnxruntime, "get_available_providers", lambda: providers)
    run, ones = SessionPool(files, providers=["auto"]), np.ones(3, np.float32)
    for name in ("float32", "float16"):
        assert run(name, {"a": ones, "b": ones}).tolist() == [2, 2, 2]
    assert [record.message for record in caplog.records] == [
        "ONNX Runtime could not load CUDA. Graphs run with CPU instead."
    ]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_threads_of_a_session_run_on_their_cores(files: dict[str, Path]) -> None:
    usable = os.sched_getaffinity(0)
    core = min(usable)
    tasks = Path("/proc/self/task")
    before = set(tasks.iterdir())
    session = create_session(files["float32"], threads=ThreadSettings(3, (core,)))
    created = set(tasks.iterdir()) - before
    assert [os.sched_getaffinity(int(task.name)) for task in created] == [{core}] * 2  # the third is the calling thread
    del session
    run = SessionPool(files, threads=ThreadSettings(1, (core,)))
    assert run("float32", {"a": np.ones(1), "b": np.ones(1)}).tolist() == [2]
    assert os.sched_getaffinity(0) == usable


def test_threads_of_a_graph_take_no_cores_after_its_run(tmp_path: Path) -> None:
    """They would look for work for tens of milliseconds, while the next graph runs."""
    session = create_session(save_product_graph(tmp_path / "graph.onnx"), threads=ThreadSettings(2))
    spent = []
    for _ in range(3):
        session.run(None, {"a": np.ones((512, 512), np.float32)})
        start = time.process_time()
        time.sleep(0.03)
        spent.append(time.process_time() - start)
    assert min(spent) < 0.003


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_further_runs_of_a_shape_take_no_more_memory(tmp_path: Path) -> None:
    session = create_session(save_product_graph(tmp_path / "graph.onnx"), threads=ThreadSettings(1))
    matrix = np.ones((1024, 1024), np.float32)  # 4 MB
    session.run(None, {"a": matrix})
    first = read_anonymous_memory()
    session.run(None, {"a": matrix})
    assert read_anonymous_memory() - first < 2048


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_weights_are_mapped_and_not_read(tmp_path: Path) -> None:
    """Those that ONNX Runtime does not pack for its products first, which takes a copy."""
    weight = numpy_helper.from_array(np.ones((64, 1024), np.float32), "b")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [64, 1024]) for name in ("a", "sum")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["sum"])], "sum", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    save(model, tmp_path / "sum.onnx", save_as_external_data=True, location="weights.safetensors")
    session = create_session(tmp_path / "sum.onnx")
    assert str(tmp_path / "weights.safetensors") in Path("/proc/self/maps").read_text()
    assert session.run(None, {"a": np.ones((64, 1024), np.float32)})[0].max() == 2


@pytest.mark.parametrize(
    ("saturates", "graph", "is_exact"),
    [
        (True, b"MatMulInteger", True),
        (False, b"MatMulInteger", False),  # with VNNI, where it would only take longer
        (True, b"MatMulInteger DequantizeLinear", False),  # which ONNX Runtime would reject
        (True, b"MatMul", False),
    ],
)
def test_products_of_bytes_are_exact_where_the_processor_saturates(
    monkeypatch: pytest.MonkeyPatch, saturates: bool, graph: bytes, is_exact: bool
) -> None:
    monkeypatch.setattr(sessions, "saturates_int8", lambda: saturates)
    assert (sessions.list_session_entries(graph).get("session.x64quantprecision") == "1") is is_exact
