"""Chains of parts give the same as nested functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgepress.runtime.rknn.part_chain import Arrays, ChainedGraphs, PartRef, dispatch_parts


def test_a_part_gets_the_output_of_the_part_before_and_inputs_of_the_graph() -> None:
    def run(name: str, inputs: Arrays) -> NDArray[np.float32]:
        (state, scale), factor = inputs.values(), {"a": 1, "b": 10, "c": 100}[name]
        assert list(inputs) == ["state", "scale"]
        return np.asarray(state + factor * scale, np.float32)

    parts = [PartRef(name, ("state", "scale")) for name in "abc"]
    run_graph = ChainedGraphs({"all": parts, "single": parts[:1]}, run)
    inputs = {"scale": np.float32([2]), "state": np.float32([1]), "unused": np.float32([9])}
    assert run_graph("all", inputs) == 1 + 2 * 111
    assert run_graph("single", inputs) == 3


def test_parts_are_dispatched_to_the_npu_or_the_cpu() -> None:
    run = dispatch_parts({"a"}, lambda _, inputs: inputs["x"] + 1, lambda _, inputs: inputs["x"] - 1)
    assert run("a", {"x": np.float32(0)}) == 1
    assert run("b", {"x": np.float32(0)}) == -1
