"""The cache of traced graphs: entries equal what was traced, and every change of an input traces again."""

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
from helpers.onnx_graphs import create_session
from helpers.small_vae import make_vae

from edgepress.common.errors import UserError
from edgepress.common.user_folders import get_graph_cache_folder
from edgepress.export.graph import trace_cache
from edgepress.export.graph.trace_cache import trace_cached
from edgepress.models.base.graph import Graph
from edgepress.models.registry import get_family


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return get_graph_cache_folder()


@pytest.fixture
def decoder() -> Graph:
    graph = get_family("ZImagePipeline").graph("vae_decoder")
    assert graph is not None
    return graph


class Tracer:
    """Counts calls, and returns a small graph with a weight and a table."""

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
    tracer.__module__ = trace_cache.trace_graph.__module__
    monkeypatch.setattr(trace_cache, "trace_graph", tracer)
    return tracer


@pytest.mark.slow
def test_a_cached_graph_computes_what_the_component_does(tmp_path: Path, decoder: Graph) -> None:
    vae = make_vae(
        block_out_channels=(8,), down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",)
    )
    vae.save_config(tmp_path)
    latents = torch.randn(1, 4, 4, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = vae.decode(latents).sample
    for _ in range(2):  # traced, then cached
        run = create_session(trace_cached(decoder, tmp_path), vae.state_dict())
        (output,) = run.run(None, {run.get_inputs()[0].name: latents.numpy()})
        assert torch.allclose(torch.from_numpy(output), expected, atol=1e-4)


def test_weights_have_no_values_and_tables_have_theirs(tiny: Path, decoder: Graph, tracer: Tracer) -> None:
    for _ in range(2):
        initializers = trace_cached(decoder, tiny / "vae").graph.initializers
        assert initializers["a.weight"].const_value is None
        assert initializers["a.weight"].shape == ir.Shape([2, 3])
        assert initializers["a.weight"].dtype == ir.DataType.FLOAT
        assert initializers["table"].const_value is not None
        assert initializers["table"].const_value.numpy().tolist() == [1, 1, 1]
    assert tracer.count == 1


def test_a_change_of_any_input_traces_again(
    tiny: Path, decoder: Graph, tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny / "vae"
    renamed = dataclasses.replace(decoder, inputs=(dataclasses.replace(decoder.inputs[0], name="z"),))
    calls: list[Callable[[], ir.Model]] = [
        lambda: trace_cached(decoder, folder),
        lambda: trace_cached(renamed, folder),
        lambda: trace_cached(decoder, folder, torch.float16),
        lambda: trace_cached(decoder, folder, sizes={"h": 4, "w": 4}),
        lambda: trace_cached(decoder, folder, sizes={"h": 4, "w": 6}),
        lambda: trace_cached(decoder, folder, blocks=range(1)),
        lambda: trace_cached(decoder, folder, blocks=range(2)),
    ]
    for number, call in enumerate(calls, 1):
        call()
        call()
        assert tracer.count == number
    trace_cached(dataclasses.replace(decoder, name="decoder_2", component="vae_2"), folder)  # traces to the same graph
    assert tracer.count == len(calls)
    with monkeypatch.context() as patched:
        patched.setattr(trace_cache, "version", lambda library: "9" if library == "torch" else "1")
        trace_cached(decoder, folder)
    with monkeypatch.context() as patched:
        patched.setattr(trace_cache, "code_fingerprint", lambda *_, **__: "other")
        trace_cached(decoder, folder)
    assert tracer.count == len(calls) + 2


def test_the_config_is_part_of_the_key_without_its_quantization(
    tiny: Path, decoder: Graph, tracer: Tracer, tmp_path: Path
) -> None:
    config = json.loads((tiny / "vae" / "config.json").read_text("utf-8"))
    for number, (options, count) in enumerate([({}, 1), ({"quantization_config": {}}, 1), ({"norm_num_groups": 2}, 2)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config | options), "utf-8")
        trace_cached(decoder, folder)
        assert tracer.count == count
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        trace_cached(decoder, tmp_path / "none")


@pytest.mark.parametrize("corrupt", [lambda _: b"", lambda old: old[:-9], lambda old: old[:99] + b"x" + old[100:]])
def test_a_corrupt_entry_is_replaced(
    tiny: Path, decoder: Graph, tracer: Tracer, cache: Path, corrupt: Callable[[bytes], bytes]
) -> None:
    trace_cached(decoder, tiny / "vae")
    (file,) = cache.iterdir()
    content = file.read_bytes()
    file.write_bytes(corrupt(content))
    trace_cached(decoder, tiny / "vae")
    assert tracer.count == 2
    assert file.read_bytes() == content


@pytest.mark.usefixtures("tracer")
def test_the_code_that_traces_is_part_of_the_key(tiny: Path, decoder: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fingerprint covers is tested in tests/common/test_code_fingerprint.py."""
    modules: list[str] = []
    monkeypatch.setattr(
        trace_cache, "code_fingerprint", lambda *names, shallow: modules.extend([*names, shallow]) or "code"
    )
    trace_cached(decoder, tiny / "vae")
    assert {"edgepress.export.graph.trace", "edgepress.export.graph.trace_cache", "edgepress.models.shared.vae"} <= set(
        modules
    )


def test_without_a_home_folder_every_export_traces(
    tiny: Path, decoder: Graph, tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", fail)
    for count in (1, 2):
        trace_cached(decoder, tiny / "vae")
        assert tracer.count == count


def test_with_an_unusable_cache_every_export_traces(tiny: Path, decoder: Graph, tracer: Tracer, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no folder", "utf-8")
    for count in (1, 2):
        assert trace_cached(decoder, tiny / "vae").graph.initializers["a.weight"].const_value is None
        assert tracer.count == count


def test_the_least_recently_used_entries_are_evicted(
    tiny: Path, decoder: Graph, tracer: Tracer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_cache, "MAX_ENTRIES", 2)
    entries = []
    for count in range(1, 4):
        trace_cached(decoder, tiny / "vae", blocks=range(count))
        (new,) = set(cache.iterdir()) - set(entries)
        entries.append(new)
        os.utime(new, (count, count))
    assert set(cache.iterdir()) == set(entries[1:])
    trace_cached(decoder, tiny / "vae", blocks=range(3))
    assert tracer.count == 3
