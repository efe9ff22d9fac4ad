"""Weights beside a graph: what is written where, in which dtype, and with how much memory."""

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
from helpers.small_graphs import empty, linear_model, packed, random_codes, stored
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


def graph_of(tensors: dict[str, torch.Tensor]) -> ir.Model:
    return linear_model({name.removesuffix(".weight"): tuple(t.shape) for name, t in tensors.items()})


# ---------------------------------------------------------------- what is written


def test_initializers_point_at_the_bytes_of_their_names(tmp_path: Path) -> None:
    tensors = linears(3)
    model = graph_of(tensors)
    write_external_data([model], WeightSource(stored(tmp_path / "component", tensors)), tmp_path, "part")
    assert list_unset_initializers(model) == []
    assert [file.name for file in shards(tmp_path)] == ["part-00001-of-00001.safetensors"]
    for name, tensor in tensors.items():
        value = model.graph.initializers[name].const_value
        assert isinstance(value, ir.ExternalTensor)
        assert np.array_equal(value.numpy(), tensor.numpy())
    found = load_file(shards(tmp_path)[0])
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_graphs_of_a_component_share_what_they_both_read(tmp_path: Path) -> None:
    tensors = linears(3)
    one, other = graph_of(dict(list(tensors.items())[:2])), graph_of(dict(list(tensors.items())[1:]))
    write_external_data([one, other], WeightSource(stored(tmp_path / "component", tensors)), tmp_path, "part")
    assert sorted(header(shards(tmp_path)[0])) == sorted(tensors)
    shared = [model.graph.initializers["l1.weight"].const_value.offset for model in (one, other)]
    assert shared[0] == shared[1]


def test_what_no_graph_reads_is_not_written(tmp_path: Path) -> None:
    tensors = linears(3)
    write_external_data(
        [graph_of(dict(list(tensors.items())[:1]))], WeightSource(stored(tmp_path / "c", tensors)), tmp_path, "part"
    )
    assert list(header(shards(tmp_path)[0])) == ["l0.weight"]


def test_shards_are_cut_before_they_grow_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_weights, "HEADER_BYTES", 1024)
    monkeypatch.setattr(external_weights, "SHARD_BYTES", 1024 + 3 * 1024)
    tensors = linears(7) | {"l7.weight": torch.ones(64, 64)}  # the last one is larger than a shard
    model = graph_of(tensors)
    write_external_data([model], WeightSource(stored(tmp_path / "component", tensors)), tmp_path, "part")
    names = [f"part-{number:05d}-of-00004.safetensors" for number in range(1, 5)]
    assert [file.name for file in shards(tmp_path)] == names
    assert [len(header(file)) for file in shards(tmp_path)] == [3, 3, 1, 1]
    assert all(file.stat().st_size <= 1024 + 3 * 1024 for file in shards(tmp_path)[:3])
    for name, tensor in tensors.items():
        assert np.array_equal(model.graph.initializers[name].const_value.numpy(), tensor.numpy())


def test_tensors_begin_at_multiples_of_64_bytes_and_odd_ones_come_last(tmp_path: Path) -> None:
    tensors = {"odd.weight": torch.ones(1, 3), **linears(2), "odder.weight": torch.ones(1, 5)}
    model = graph_of(tensors)
    write_external_data([model], WeightSource(stored(tmp_path / "component", tensors)), tmp_path, "part")
    assert list(header(shards(tmp_path)[0])) == ["l0.weight", "l1.weight", "odd.weight", "odder.weight"]
    offsets = [model.graph.initializers[name].const_value.offset for name in ("l0.weight", "l1.weight", "odd.weight")]
    assert [offset % 64 for offset in offsets] == [0, 0, 0]
    assert model.graph.initializers["odder.weight"].const_value.offset % 4 == 0


@pytest.mark.parametrize("asked", [ir.DataType.FLOAT, ir.DataType.FLOAT16])
def test_what_is_stored_in_16_bits_is_cast_as_the_graph_asks(asked: ir.DataType, tmp_path: Path) -> None:
    tensors = {name: tensor.bfloat16() for name, tensor in linears(2).items()}
    model = graph_of(tensors)
    for value in model.graph.initializers.values():
        value.dtype = asked
    write_external_data([model], WeightSource(stored(tmp_path / "component", tensors)), tmp_path, "part")
    for name, tensor in tensors.items():
        found = model.graph.initializers[name].const_value.numpy()
        assert found.dtype == asked.numpy()
        assert np.array_equal(found, tensor.float().numpy().astype(found.dtype))


def test_equal_components_give_equal_bytes(tmp_path: Path) -> None:
    tensors = linears(5)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        source = WeightSource(stored(tmp_path / name / "component", tensors))
        write_external_data([graph_of(tensors)], source, tmp_path / name, "part")
    one, other = (shards(tmp_path / name)[0].read_bytes() for name in ("a", "b"))
    assert one == other


def test_a_weight_that_the_component_lacks_is_named_before_anything_is_written(tmp_path: Path) -> None:
    tensors = linears(2)
    checkpoint = stored(tmp_path / "component", {"l0.weight": tensors["l0.weight"]})
    with pytest.raises(UserError, match=r"component lacks the weight l1\.weight"):
        write_external_data([graph_of(tensors)], WeightSource(checkpoint), tmp_path, "part")
    assert shards(tmp_path) == []


def test_a_weight_of_another_shape_is_refused(tmp_path: Path) -> None:
    checkpoint = stored(tmp_path / "component", {"l0.weight": torch.ones(4, 4)})
    with pytest.raises(ValueError, match=r"l0\.weight is \(4, 4\)"):
        write_external_data([graph_of(linears(1))], WeightSource(checkpoint), tmp_path, "part")


# ---------------------------------------------------------------- pressed components


def test_a_pressed_linear_is_dequantized_where_a_graph_asks_for_its_weight(tmp_path: Path) -> None:
    codes = random_codes(24, 96, 32, zero_points=True)
    source = WeightSource(stored(tmp_path / "component", packed({"a": codes})))
    assert source.int4_linears == {"a": Int4Layout((24, 96), 32, has_zero_points=True)}
    model = linear_model({"a": (24, 96)})
    write_external_data([model], source, tmp_path, "part")
    assert np.array_equal(model.graph.initializers["a.weight"].const_value.numpy(), dequantize(codes).numpy())


def test_a_solution_takes_the_place_of_what_it_holds(tmp_path: Path) -> None:
    main, other = random_codes(24, 64, 32, True), random_codes(24, 64, 64, False, seed=1)
    checkpoint = stored(tmp_path / "component", packed({"a": main}) | {"norm.weight": torch.ones(1, 64)})
    source = WeightSource(checkpoint, stored(tmp_path / "solution", packed({"a": other})), to_dequantize_linear_operand)
    assert source.int4_linears == {"a": Int4Layout((24, 64), 64, has_zero_points=False)}
    assert torch.equal(source.materialize("a.scales").T, other.qparams.scales)
    assert torch.equal(source.materialize("norm.weight"), torch.ones(1, 64))


def test_a_solution_in_8_bits_takes_the_place_of_4_bits_and_so_does_what_it_keeps(tmp_path: Path) -> None:
    """`a` is in 8 bits with a scale of its input, `b` without, `kept` in floats; `left` is not in it."""
    four = {name: random_codes(24, 64, 32, True) for name in ("a", "b", "kept", "left")}
    codes = torch.arange(64 * 24).remainder(255).add(1).to(torch.uint8).reshape(64, 24)
    scales = torch.rand(1, 24, generator=torch.Generator().manual_seed(0)).half()
    solution = {f"{name}.qweight": codes for name in "ab"} | {f"{name}.scales": scales.clone() for name in "ab"}
    solution |= {f"{name}.qzeros": torch.full((1, 24), 128, dtype=torch.uint8) for name in "ab"}
    solution |= {"a.input_scale": torch.tensor(0.25), "kept.weight": torch.ones(24, 64), "norm.weight": torch.zeros(64)}
    checkpoint = stored(tmp_path / "component", packed(four) | {"norm.weight": torch.ones(64)})
    source = WeightSource(checkpoint, stored(tmp_path / "solution", {k: v.clone() for k, v in solution.items()}))
    assert source.int4_linears == {"left": Int4Layout((24, 64), 32, has_zero_points=True)}
    assert source.int8_linears == {"a": Int8Layout((24, 64), 0.25), "b": Int8Layout((24, 64), None)}
    made = source.materialize("a.qweight")
    assert made.dtype == torch.int8
    assert torch.equal(made.int(), codes.int() - 128)
    assert torch.equal(source.materialize("b.scales"), scales[0].float())
    assert torch.equal(source.materialize("a.weight"), ((codes.float() - 128) * scales.float()).T)
    assert torch.equal(source.materialize("kept.weight"), torch.ones(24, 64))
    assert torch.equal(source.materialize("norm.weight"), torch.zeros(64))
    assert "kept.qweight" not in source


def test_an_embedding_is_known_by_what_it_is_stored_in(tmp_path: Path) -> None:
    tensors = {"rows.codes": torch.zeros(4, 8, dtype=torch.int8), "rows.scales": torch.ones(4, 1).half()}
    source = WeightSource(stored(tmp_path / "component", tensors | {"wide.weight": torch.ones(4, 8).bfloat16()}))
    assert source.get_embedding_dtype("rows") == ir.DataType.INT8
    assert source.get_embedding_dtype("wide") == ir.DataType.BFLOAT16


# ---------------------------------------------------------------- memory

STREAMED = """
import resource, sys, threading
from pathlib import Path
from helpers.small_graphs import linear_model
from edgepress.storage.checkpoint import Checkpoint
from edgepress.export.graph.external_weights import Source, attach

folder, number, side = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
model = linear_model({f"l{i}": (side, side) for i in range(number)})
source = Source(Checkpoint(folder / "component"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
attach([model], source, folder, "part")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_grows_with_a_tensor_and_not_with_the_component(tmp_path: Path) -> None:
    """24 tensors of 16 MB: what is held is one of them in the file's mapping, and a piece of it that is being cast."""
    number, side = 24, 2048
    stored(tmp_path / "component", {f"l{i}.weight": torch.full((side, side), float(i)) for i in range(number)})
    words = [sys.executable, "-c", STREAMED, str(tmp_path), str(number), str(side)]
    done = subprocess.run(words, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 3 * side * side * 4
    assert sum(file.stat().st_size for file in shards(tmp_path)) > number * side * side * 4
    assert Checkpoint(tmp_path / "component").file_bytes() > number * side * side * 4


def test_a_value_without_a_weight_is_what_is_lacking() -> None:
    model = linear_model({"a": (8, 32)})
    known = ir.Value(name="table", const_value=ir.tensor(np.ones(3, np.float32), name="table"))
    model.graph.register_initializer(known)
    assert [value.name for value in list_unset_initializers(model)] == ["a.weight"]
    assert empty("x", (2,)).const_value is None
