"""Chains: the same as one function after another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgepress.runtime.rknn.part_chain import Arrays, ChainedGraphs, PartRef


def test_a_part_is_handed_what_the_one_before_gives_and_the_rest_of_the_inputs() -> None:
    def run(name: str, inputs: Arrays) -> NDArray[np.float32]:
        (state, scale), factor = inputs.values(), {"a": 1, "b": 10, "c": 100}[name]
        assert list(inputs) == ["state", "scale"]
        return np.asarray(state + factor * scale, np.float32)

    links = [PartRef(name, ("state", "scale")) for name in "abc"]
    chains = ChainedGraphs({"all": links, "one": links[:1]}, run)
    inputs = {"scale": np.float32([2]), "state": np.float32([1]), "other": np.float32([9])}
    assert chains("all", inputs) == 1 + 2 * 111
    assert chains("one", inputs) == 3
