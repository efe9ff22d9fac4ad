"""Where graphs say that their weights are, read without the package onnx and compared with it."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from helpers.published_artifact import WEIGHTS, write_published_artifact
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from edgepress.common.errors import UserError
from edgepress.runtime.onnx.external_data import ExternalTensor, check_graph, read_external_tensors


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_published_artifact(tmp_path).onnx / "caption.onnx"


def change(graph: Path, **entries: str) -> None:
    model = onnx.load(graph, load_external_data=False)
    tensor = next(tensor for tensor in model.graph.initializer if uses_external_data(tensor))
    values = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in values.items():
        tensor.external_data.add(key=key, value=value)
    graph.write_bytes(model.SerializeToString())


def test_locations_are_those_that_onnx_reads(graph: Path) -> None:
    model = onnx.load(graph, load_external_data=False)
    expected = [
        ExternalTensor(tensor.name, info.location, info.offset, info.length)
        for tensor in model.graph.initializer
        if uses_external_data(tensor)
        for info in [ExternalDataInfo(tensor)]
    ]
    assert list(read_external_tensors(graph)) == expected
    assert [tensor.file for tensor in expected] == [WEIGHTS]
    check_graph(graph)


@pytest.mark.parametrize("content", [b"", b"{}", bytes(100), b"\xff" * 100])
def test_other_bytes_are_no_graph(graph: Path, content: bytes) -> None:
    graph.write_bytes(content)
    with pytest.raises(UserError, match=r"caption\.onnx is not an ONNX graph"):
        check_graph(graph)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"location": "../secret"}, "not a path below its folder"),
        ({"location": "/etc/passwd"}, "not a path below its folder"),
        ({"location": "absent"}, "absent, which is missing"),
        ({"offset": "1000000"}, "bytes that .* does not have"),
        ({"length": "1000000"}, "bytes that .* does not have"),
        ({"offset": "-1"}, "bytes that .* does not have"),
        ({"offset": "x"}, "not an ONNX graph"),
    ],
)
def test_weights_that_are_elsewhere_are_reported(graph: Path, entries: dict[str, str], reason: str) -> None:
    change(graph, **entries)
    with pytest.raises(UserError, match=reason):
        check_graph(graph)
