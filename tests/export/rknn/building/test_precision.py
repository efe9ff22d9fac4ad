"""Precisions that a part may be built in, and layers that stay in float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers.toolkit import needs_toolkit
from onnx import TensorProto, helper, numpy_helper

from edgepress.export.rknn.building.builder import BuiltPart, build_part
from edgepress.export.rknn.building.precision import list_build_options, select_float_layers
from edgepress.export.rknn.building.simulation import BuildRequest, GoldenSample, LayerError
from edgepress.models.base.graph import Graph, Port
from edgepress.models.base.npu import GraphPart
from edgepress.recipes.schema import Scheme
from edgepress.runtime.rknn.simulator import save_calibration_samples
from edgepress.runtime.rknn.toolkit import Toolkit

CHANNEL = Scheme(group_size="channel", symmetric=True, narrow_range=True)
GROUPS = Scheme(group_size=32, symmetric=True, narrow_range=True)
BYTES = Scheme(bits=8, group_size="channel", symmetric=True, narrow_range=True, activations="static")
PART = GraphPart("m", Graph("m", "c", "", (Port("x", (1, 32, 64)),), (Port("y", (1, 32, 64)),)))


@pytest.mark.parametrize(
    ("precision", "scheme", "names"),
    [
        ("fp16", CHANNEL, ["fp16"]),
        ("auto", None, ["fp16"]),
        ("auto", CHANNEL, ["w4a16", "fp16"]),
        ("auto", BYTES, ["w8a8", "fp16"]),
        ("w8a8", BYTES, ["w8a8"]),
    ],
)
def test_the_lowest_precision_comes_first(precision: str, scheme: Scheme | None, names: list[str]) -> None:
    assert [option.precision for option in list_build_options(precision, "rk3576", scheme)] == names


def test_the_toolkit_quantizes_in_the_groups_of_the_solution() -> None:
    methods = [
        list_build_options("w4a16", "rk3576", scheme)[0].build_config.toolkit_config["quantized_method"]
        for scheme in (CHANNEL, GROUPS)
    ]
    assert methods == ["channel", "group32"]


def test_layers_with_large_errors_stay_in_float16() -> None:
    errors = {"a": 0.5, "b": 2e-5, "c": 0.0}
    layers = [LayerError("Conv", name, error) for name, error in errors.items()]
    layers.append(LayerError("exDataConvert", "a__float16", 0.5))
    assert select_float_layers("w4a16", layers) == ("a", "b")
    assert select_float_layers("w8a8", layers) == ("a",)
    assert select_float_layers("fp16", layers) == ()


def _round_to_grid(weight: np.ndarray, group: int) -> np.ndarray:
    """Rounds a weight (in, out) symmetrically to 4 bits, in groups of input channels."""
    groups = weight.reshape(-1, group, weight.shape[1])
    scale = np.abs(groups).max(1, keepdims=True) / 7
    return (np.round(groups / scale) * scale).reshape(weight.shape).astype(np.float32)


def _write_two_linears(folder: Path, group: int) -> tuple[Path, GoldenSample]:
    """Writes y = (x A) B, where A is rounded and B is not."""
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal((64, 64)).astype(np.float32) / 8 for _ in range(2))
    a = _round_to_grid(a, group)
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])]
    ports = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 32, 64))] for name in "xy"]
    weights = [numpy_helper.from_array(array, name) for array, name in ((a, "a"), (b, "b"))]
    graph = helper.make_graph(nodes, "g", *ports, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), folder / "m.onnx")
    x = generator.standard_normal((1, 32, 64)).astype(np.float32)
    return folder / "m.onnx", GoldenSample({"x": x}, x @ a @ b)


@pytest.mark.slow
@needs_toolkit
@pytest.mark.parametrize("scheme", [CHANNEL, GROUPS])
def test_unquantized_linears_stay_in_float16_and_quantized_ones_are_exact(
    scheme: Scheme, toolkit: Toolkit, tmp_path: Path
) -> None:
    folder = tmp_path / "a name with spaces"
    folder.mkdir()
    file, golden = _write_two_linears(folder, scheme.resolve_group_size(64))
    save_calibration_samples([golden.inputs], folder / "samples")
    request = BuildRequest(file, folder / "samples", folder / "m.rknn", [golden])
    options = list_build_options("w4a16", "rk3576", scheme)
    built = build_part(toolkit, PART, options, lambda _: request, always_analyze=True)
    assert built.measurement.relative_error <= 1e-3
    assert built.precision == "w4a16"
    assert len(built.build_config.float_layers) == 1


@pytest.mark.slow
@needs_toolkit
def test_a_part_that_is_rejected_in_8_bits_is_built_in_fp16(toolkit: Toolkit, tmp_path: Path) -> None:
    """Calibration saw activations a hundred times smaller, so they are clipped."""
    file, small = _write_two_linears(tmp_path, 64)
    save_calibration_samples([small.inputs], tmp_path / "samples")
    large = GoldenSample({"x": small.inputs["x"] * 100}, small.output * 100)
    options = list_build_options("auto", "rk3588", BYTES)

    def build(golden: GoldenSample) -> BuiltPart:
        request = BuildRequest(file, tmp_path / "samples", tmp_path / "m.rknn", [golden])
        return build_part(toolkit, PART, options, lambda _: request, always_analyze=True)

    accepted, fallback = build(small), build(large)
    assert accepted.precision == "w8a8"
    assert accepted.rejections == ()
    assert accepted.measurement.relative_error < 0.05
    assert fallback.precision == "fp16"
    assert fallback.measurement.relative_error <= 2e-3
    (rejection,) = fallback.rejections
    assert (rejection.precision, rejection.reason) == ("w8a8", "every layer loses too much in 8 bits")
