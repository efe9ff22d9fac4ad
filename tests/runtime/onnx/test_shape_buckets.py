"""Graphs of fixed shapes: the file whose shapes are those of the inputs, or a sentence that says which there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgepress.common.errors import UserError
from edgepress.runtime.onnx.shape_buckets import BucketedGraph, ShapeBucket, select_bucket

PORTS: dict[str, tuple[int | str, ...]] = {"patches": (1, "N", 64), "caption": (1, "L", 32), "time": (1,)}
GRAPHS = {
    "fixed": BucketedGraph(PORTS, [ShapeBucket("small", {"N": 32, "L": 32}), ShapeBucket("large", {"N": 64, "L": 32})]),
    "dynamic": BucketedGraph(PORTS, [ShapeBucket("any", {})]),
}


def inputs(patches: int, tokens: int) -> dict[str, Any]:
    return {"patches": np.zeros((1, patches, 64)), "caption": np.zeros((1, tokens, 32)), "time": np.zeros(1)}


def test_the_file_of_those_shapes_is_picked() -> None:
    assert select_bucket(GRAPHS, "fixed", inputs(32, 32)) == "small"
    assert select_bucket(GRAPHS, "fixed", inputs(64, 32)) == "large"


def test_a_graph_of_dynamic_shapes_has_one_file() -> None:
    assert select_bucket(GRAPHS, "dynamic", inputs(7, 9)) == "any"


def test_shapes_that_there_is_no_file_for_are_told_with_those_there_are() -> None:
    with pytest.raises(UserError, match="fixed is there for N 32, L 32; N 64, L 32, not for N 32, L 64"):
        select_bucket(GRAPHS, "fixed", inputs(32, 64))


def test_a_graph_that_is_not_there_is_told_with_those_there_are() -> None:
    with pytest.raises(UserError, match="no graph 'other', only fixed, dynamic"):
        select_bucket(GRAPHS, "other", {})
