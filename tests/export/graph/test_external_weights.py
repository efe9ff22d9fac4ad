"""Weights beside a graph: locations, dtypes and memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from helpers.small_graphs import (
    make_awq_tensors,
    make_initializer,
    make_linear_model,
    make_random_weight,
    write_component,
)
from safetensors.torch import load_file

from edgepress.common.errors import UserError
from edgepress.export.graph import external_weights
from edgepress.export.graph.external_weights import (
    Int4Layout,
    Int8Layout,
    WeightSource,
    list_unset_initializers,
    write_external_data,
)
from edgepress.export.graph.int4_operands import to_dequantize_linear_operand
from edgepress.numerics.affine import dequantize
from edgepress.storage.checkpoint import Checkpoint


def header(file: Path) -> dict[str, dict[str, object]]:
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        return dict(json.loads(stream.read(length)))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.safetensors"))


def linears(number: int, height: int = 8, width: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"l{i}.weight": torch.randn(height, width, generator=generator) for i in range(number)}


def make_graph(tensors: dict[str, torch.Tensor]) -> ir.Model:
    return make_linear_model({name.removesuffix(".weight"): tuple(t.shape) for name, t in tensors.items()})


# ---------------------------------------------------------------- what is written


def test_initializers_point_at_their_tensors(tmp_path: Path) -> None:
    tensors = linears(3)
    model = make_graph(tensors)
    write_external_data([model], WeightSource(write_component(tmp_path / "component", tensors)), tmp_path, "part")
    assert list_unset_initializers(model) == []
    assert [file.name for file in shards(tmp_path)] == ["part-00001-of-00001.safetensors"]
    for name, tensor in tensors.items():
        value = model.graph.initializers[name].const_value
        assert isinstance(value, ir.ExternalTensor)
        assert np.array_equal(value.numpy(), tensor.numpy())
    written = load_file(shards(tmp_path)[0])
    assert written.keys() == tensors.keys()
    assert all(torch.equal(written[name], tensors[name]) for name in tensors)


def test_graphs_of_a_component_share_tensors(tmp_path: Path) -> None:
    tensors = linears(3)
    models = [make_graph(dict(list(tensors.items())[:2])), make_graph(dict(list(tensors.items())[1:]))]
    write_external_data(models, WeightSource(write_component(tmp_path / "component", tensors)), tmp_path, "part")
    assert sorted(header(shards(tmp_path)[0])) == sorted(tensors)
    shared = [model.graph.initializers["l1.weight"].const_value.offset for model in models]
    assert shared[0] == shared[1]


def test_tensors_that_no_graph_reads_are_not_written(tmp_path: Path) -> None:
    tensors = linears(3)
    write_external_data(
        [make_graph(dict(list(tensors.items())[:1]))],
        WeightSource(write_component(tmp_path / "c", tensors)),
        tmp_path,
        "part",
    )
    assert list(header(shards(tmp_path)[0])) == ["l0.weight"]


def test_shards_have_a_maximum_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_weights, "HEADER_BYTES", 1024)
    monkeypatch.setattr(external_weights, "MAX_SHARD_BYTES", 1024 + 3 * 1024)
    tensors = linears(7) | {"l7.weight": torch.ones(64, 64)}  # the last one is larger than a shard
    model = make_graph(tensors)
    write_external_data([model], WeightSource(write_component(tmp_path / "component", tensors)), tmp_path, "part")
    names = [f"part-{number:05d}-of-00004.safetensors" for number in range(1, 5)]
    assert [file.name for file in shards(tmp_path)] == names
    assert [len(header(file)) for file in shards(tmp_path)] == [3, 3, 1, 1]
    assert all(file.stat().st_size <= 1024 + 3 * 1024 for file in shards(tmp_path)[:3])
    for name, tensor in tensors.items():
        assert np.array_equal(model.graph.initializers[name].const_value.numpy(), tensor.numpy())


def test_tensors_are_aligned_to_64_bytes_and_odd_ones_come_last(tmp_path: Path) -> None:
    tensors = {"odd.weight": torch.ones(1, 3), **linears(2), "odder.weight": torch.ones(1, 5)}
    model = make_graph(tensors)
    write_external_data([model], WeightSource(write_component(tmp_path / "component", tensors)), tmp_path, "part")
    assert list(header(shards(tmp_path)[0])) == ["l0.weight", "l1.weight", "odd.weight", "odder.weight"]
    offsets = [model.graph.initializers[name].const_value.offset for name in ("l0.weight", "l1.weight", "odd.weight")]
    assert [offset % 64 for offset in offsets] == [0, 0, 0]
    assert model.graph.initializers["odder.weight"].const_value.offset % 4 == 0


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT, ir.DataType.FLOAT16])
def test_16_bit_tensors_are_cast_to_the_dtype_of_the_graph(dtype: ir.DataType, tmp_path: Path) -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in linears(2).items()}
    model = make_graph(tensors)
    for value in model.graph.initializers.values():
        value.dtype = dtype
    write_external_data([model], WeightSource(write_component(tmp_path / "component", tensors)), tmp_path, "part")
    for name, tensor in tensors.items():
        values = model.graph.initializers[name].const_value.numpy()
        assert values.dtype == dtype.numpy()
        assert np.array_equal(values, tensor.float().numpy().astype(values.dtype))


def test_equal_components_give_equal_bytes(tmp_path: Path) -> None:
    tensors = linears(5)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        source = WeightSource(write_component(tmp_path / name / "component", tensors))
        write_external_data([make_graph(tensors)], source, tmp_path / name, "part")
    first, second = (shards(tmp_path / name)[0].read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_missing_weight_is_reported_before_anything_is_written(tmp_path: Path) -> None:
    tensors = linears(2)
    checkpoint = write_component(tmp_path / "component", {"l0.weight": tensors["l0.weight"]})
    with pytest.raises(UserError, match=r"Weight 'l1\.weight' is missing from .*component"):
        write_external_data([make_graph(tensors)], WeightSource(checkpoint), tmp_path, "part")
    assert shards(tmp_path) == []


def test_a_weight_of_another_shape_is_rejected(tmp_path: Path) -> None:
    checkpoint = write_component(tmp_path / "component", {"l0.weight": torch.ones(4, 4)})
    with pytest.raises(ValueError, match=r"l0\.weight has the shape \(4, 4\)"):
        write_external_data([make_graph(linears(1))], WeightSource(checkpoint), tmp_path, "part")


# ---------------------------------------------------------------- quantized components


def test_a_quantized_linear_is_dequantized_for_graphs_that_read_its_weight(tmp_path: Path) -> None:
    codes = make_random_weight(24, 96, 32, zero_points=True)
    source = WeightSource(write_component(tmp_path / "component", make_awq_tensors({"a": codes})))
    assert source.int4_linears == {"a": Int4Layout((24, 96), 32, has_zero_points=True)}
    model = make_linear_model({"a": (24, 96)})
    write_external_data([model], source, tmp_path, "part")
    assert np.array_equal(model.graph.initializers["a.weight"].const_value.numpy(), dequantize(codes).numpy())


def test_a_solution_replaces_the_modules_that_it_contains(tmp_path: Path) -> None:
    primary, solution = make_random_weight(24, 64, 32, True), make_random_weight(24, 64, 64, False, seed=1)
    checkpoint = write_component(
        tmp_path / "component", make_awq_tensors({"a": primary}) | {"norm.weight": torch.ones(1, 64)}
    )
    source = WeightSource(
        checkpoint,
        write_component(tmp_path / "solution", make_awq_tensors({"a": solution})),
        to_dequantize_linear_operand,
    )
    assert source.int4_linears == {"a": Int4Layout((24, 64), 64, has_zero_points=False)}
    assert torch.equal(source.materialize("a.scales").T, solution.qparams.scales)
    assert torch.equal(source.materialize("norm.weight"), torch.ones(1, 64))


def test_an_int8_solution_replaces_int4_modules_and_so_do_its_float_modules(tmp_path: Path) -> None:
    """`a` is INT8 with a static input scale, `b` without, `float` is in floats; `int4` is not in the solution."""
    int4 = {name: make_random_weight(24, 64, 32, True) for name in ("a", "b", "float", "int4")}
    codes = torch.arange(64 * 24).remainder(255).add(1).to(torch.uint8).reshape(64, 24)
    scales = torch.rand(1, 24, generator=torch.Generator().manual_seed(0)).half()
    solution = {f"{name}.qweight": codes for name in "ab"} | {f"{name}.scales": scales.clone() for name in "ab"}
    solution |= {f"{name}.qzeros": torch.full((1, 24), 128, dtype=torch.uint8) for name in "ab"}
    solution |= {
        "a.input_scale": torch.tensor(0.25),
        "float.weight": torch.ones(24, 64),
        "norm.weight": torch.zeros(64),
    }
    checkpoint = write_component(tmp_path / "component", make_awq_tensors(int4) | {"norm.weight": torch.ones(64)})
    source = WeightSource(
        checkpoint, write_component(tmp_path / "solution", {k: v.clone() for k, v in solution.items()})
    )
    assert source.int4_linears == {"int4": Int4Layout((24, 64), 32, has_zero_points=True)}
    assert source.int8_linears == {"a": Int8Layout((24, 64), 0.25), "b": Int8Layout((24, 64), None)}
    operand = source.materialize("a.qweight")
    assert operand.dtype == torch.int8
    assert torch.equal(operand.int(), codes.int() - 128)
    assert torch.equal(source.materialize("b.scales"), scales[0].float())
    assert torch.equal(source.materialize("a.weight"), ((codes.float() - 128) * scales.float()).T)
    assert torch.equal(source.materialize("float.weight"), torch.ones(24, 64))
    assert torch.equal(source.materialize("norm.weight"), torch.zeros(64))
    assert "float.qweight" not in source


def test_the_dtype_of_an_embedding_is_that_of_its_storage(tmp_path: Path) -> None:
    tensors = {"rows.codes": torch.zeros(4, 8, dtype=torch.int8), "rows.scales": torch.ones(4, 1).half()}
    source = WeightSource(
        write_component(tmp_path / "component", tensors | {"wide.weight": torch.ones(4, 8).bfloat16()})
    )
    assert source.get_embedding_dtype("rows") == ir.DataType.INT8
    assert source.get_embedding_dtype("wide") == ir.DataType.BFLOAT16


# ---------------------------------------------------------------- memory

MEMORY_SCRIPT = """
import resource, sys
from pathlib import Path
from helpers.small_graphs import make_linear_model
from edgepress.storage.checkpoint import Checkpoint
from edgepress.export.graph.external_weights import WeightSource, write_external_data

folder, number, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
model = make_linear_model({f"l{i}": (size, size) for i in range(number)})
source = WeightSource(Checkpoint(folder / "component"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_external_data([model], source, folder, "part")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_grows_with_a_tensor_and_not_with_the_component(tmp_path: Path) -> None:
    """Of 24 tensors of 16 MB, one is mapped from its file, and a chunk of it is cast."""
    number, size = 24, 2048
    write_component(tmp_path / "component", {f"l{i}.weight": torch.full((size, size), float(i)) for i in range(number)})
    command = [sys.executable, "-c", MEMORY_SCRIPT, str(tmp_path), str(number), str(size)]
    result = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert int(result.stdout) * 1024 < 3 * size * size * 4
    assert sum(file.stat().st_size for file in shards(tmp_path)) > number * size * size * 4
    assert Checkpoint(tmp_path / "component").file_bytes() > number * size * size * 4


def test_initializers_without_values_are_listed() -> None:
    model = make_linear_model({"a": (8, 32)})
    table = ir.Value(name="table", const_value=ir.tensor(np.ones(3, np.float32), name="table"))
    model.graph.register_initializer(table)
    assert [value.name for value in list_unset_initializers(model)] == ["a.weight"]
    assert make_initializer("x", (2,)).const_value is None
