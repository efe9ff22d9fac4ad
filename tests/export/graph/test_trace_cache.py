"""Graphs that are kept: read again they are what was traced, and whatever one is made from has it traced anew."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from helpers.onnx_graphs import load, session

from edgepress.common.errors import UserError
from edgepress.export.graph import trace_cache
from edgepress.export.graph.trace_cache import get_cache_folder, trace_cached
from edgepress.models.base.graph import Graph
from edgepress.models.registry import get_family


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return get_cache_folder()


@pytest.fixture
def decoder() -> Graph:
    graph = get_family("ZImagePipeline").graph("vae_decoder")
    assert graph is not None
    return graph


class Tracer:
    """Counts how often a graph is traced; what it gives is a small one with a weight and a table."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *_: Any) -> ir.Model:
        self.count += 1
        shape, type_ = ir.Shape([2, 3]), ir.TensorType(ir.DataType.FLOAT)
        x = ir.Value(name="x", shape=ir.Shape(["N", 2]), type=type_)
        weight = ir.Value(name="a.weight", shape=shape, type=type_)
        table = ir.Value(name="table", const_value=ir.tensor(torch.ones(3).numpy(), name="table"))
        product = ir.node("MatMul", [x, weight])
        sum_ = ir.node("Add", [product.outputs[0], table])
        graph = ir.Graph([x], sum_.outputs, nodes=[product, sum_], initializers=[weight, table], opset_imports={"": 23})
        return ir.Model(graph, ir_version=10)


@pytest.fixture
def tracer(monkeypatch: pytest.MonkeyPatch) -> Tracer:
    tracer = Tracer()
    monkeypatch.setattr(trace_cache, "trace", tracer)
    return tracer


@pytest.mark.slow
def test_a_kept_graph_computes_what_the_component_does(tiny: Path, decoder: Graph) -> None:
    vae, latents = load(tiny, "vae"), torch.randn(1, 16, 4, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = vae.decode(latents).sample
    for _ in range(2):  # traced, then kept
        run = session(trace_cached(decoder, tiny / "vae"), vae.state_dict())
        (found,) = run.run(None, {run.get_inputs()[0].name: latents.numpy()})
        assert torch.allclose(torch.from_numpy(found), expected, atol=1e-4)


def test_weights_have_no_values_and_tables_have_theirs(tiny: Path, decoder: Graph, tracer: Tracer) -> None:
    for _ in range(2):
        found = trace_cached(decoder, tiny / "vae").graph.initializers
        assert found["a.weight"].const_value is None
        assert found["a.weight"].shape == ir.Shape([2, 3])
        assert found["a.weight"].dtype == ir.DataType.FLOAT
        assert found["table"].const_value is not None
        assert found["table"].const_value.numpy().tolist() == [1, 1, 1]
    assert tracer.count == 1


def test_whatever_a_graph_is_made_from_has_it_traced_anew(
    tiny: Path, decoder: Graph, tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny / "vae"
    other = dataclasses.replace(decoder, inputs=(dataclasses.replace(decoder.inputs[0], name="z"),))
    asked: list[Callable[[], ir.Model]] = [
        lambda: trace_cached(decoder, folder),
        lambda: trace_cached(other, folder),
        lambda: trace_cached(decoder, folder, torch.float16),
        lambda: trace_cached(decoder, folder, sizes={"h": 4, "w": 4}),
        lambda: trace_cached(decoder, folder, sizes={"h": 4, "w": 6}),
        lambda: trace_cached(decoder, folder, blocks=range(1)),
        lambda: trace_cached(decoder, folder, blocks=range(2)),
    ]
    for number, ask in enumerate(asked, 1):
        ask()
        ask()
        assert tracer.count == number
    with monkeypatch.context() as patched:
        patched.setattr(trace_cache, "version", lambda library: "9" if library == "torch" else "1")
        trace_cached(decoder, folder)
    with monkeypatch.context() as patched:
        patched.setattr(trace_cache, "code_of", lambda *_, **__: "other")
        trace_cached(decoder, folder)
    assert tracer.count == len(asked) + 2


def test_the_config_counts_but_for_how_weights_are_stored(
    tiny: Path, decoder: Graph, tracer: Tracer, tmp_path: Path
) -> None:
    config = json.loads((tiny / "vae" / "config.json").read_text("utf-8"))
    for number, (more, count) in enumerate([({}, 1), ({"quantization_config": {}}, 1), ({"norm_num_groups": 2}, 2)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config | more), "utf-8")
        trace_cached(decoder, folder)
        assert tracer.count == count
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        trace_cached(decoder, tmp_path / "none")


@pytest.mark.parametrize("damage", [lambda _: b"", lambda old: old[:-9], lambda old: old[:99] + b"x" + old[100:]])
def test_a_damaged_file_is_mended(
    tiny: Path, decoder: Graph, tracer: Tracer, cache: Path, damage: Callable[[bytes], bytes]
) -> None:
    trace_cached(decoder, tiny / "vae")
    (file,) = cache.iterdir()
    sound = file.read_bytes()
    file.write_bytes(damage(sound))
    trace_cached(decoder, tiny / "vae")
    assert tracer.count == 2
    assert file.read_bytes() == sound


@pytest.mark.slow
def test_our_code_that_traces_counts(tiny: Path, decoder: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a digest of modules covers: tests/test_source_code.py."""
    asked: list[str] = []
    monkeypatch.setattr(trace_cache, "code_of", lambda *names, alone: asked.extend([*names, alone]) or "code")
    trace_cached(decoder, tiny / "vae")
    assert {"edgepress.export.graph.trace", "edgepress.export.graph.trace_cache", "edgepress.models.shared.vae"} <= set(
        asked
    )


def test_a_user_without_a_home_can_export(
    tiny: Path, decoder: Graph, tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    for count in (1, 2):
        trace_cached(decoder, tiny / "vae")
        assert tracer.count == count


def test_where_nothing_can_be_kept_every_export_traces(
    tiny: Path, decoder: Graph, tracer: Tracer, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("no folder", "utf-8")
    for count in (1, 2):
        assert trace_cached(decoder, tiny / "vae").graph.initializers["a.weight"].const_value is None
        assert tracer.count == count


def test_the_oldest_go(
    tiny: Path, decoder: Graph, tracer: Tracer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_cache, "MOST", 2)
    written = []
    for count in range(1, 4):
        trace_cached(decoder, tiny / "vae", blocks=range(count))
        (new,) = set(cache.iterdir()) - set(written)
        written.append(new)
        os.utime(new, (count, count))
    assert set(cache.iterdir()) == set(written[1:])
    trace_cached(decoder, tiny / "vae", blocks=range(3))
    assert tracer.count == 3
