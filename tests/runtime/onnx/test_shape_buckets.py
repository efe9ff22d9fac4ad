"""Graphs of fixed shapes: inputs select the file of their shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgepress.common.errors import UserError
from edgepress.runtime.onnx.shape_buckets import BucketedGraph, ShapeBucket, select_bucket

INPUT_AXES: dict[str, tuple[int | str, ...]] = {"patches": (1, "N", 64), "caption": (1, "L", 32), "time": (1,)}
GRAPHS = {
    "fixed": BucketedGraph(
        INPUT_AXES, [ShapeBucket("small", {"N": 32, "L": 32}), ShapeBucket("large", {"N": 64, "L": 32})]
    ),
    "dynamic": BucketedGraph(INPUT_AXES, [ShapeBucket("any", {})]),
}


def make_inputs(patches: int, tokens: int) -> dict[str, Any]:
    return {"patches": np.zeros((1, patches, 64)), "caption": np.zeros((1, tokens, 32)), "time": np.zeros(1)}


def test_bucket_of_the_input_shapes_is_selected() -> None:
    assert select_bucket(GRAPHS, "fixed", make_inputs(32, 32)) == "small"
    assert select_bucket(GRAPHS, "fixed", make_inputs(64, 32)) == "large"


def test_dynamic_graph_has_one_file() -> None:
    assert select_bucket(GRAPHS, "dynamic", make_inputs(7, 9)) == "any"


def test_missing_shape_names_the_exported_ones() -> None:
    with pytest.raises(UserError, match="exported for N=32, L=32; N=64, L=32, but N=32, L=64 was requested"):
        select_bucket(GRAPHS, "fixed", make_inputs(32, 64))


def test_missing_graph_names_the_exported_ones() -> None:
    with pytest.raises(UserError, match=r"'unet' is not in pipeline\.json, which lists fixed, dynamic"):
        select_bucket(GRAPHS, "unet", {})
