"""Weighing parts: parameters as the traced graph has them, and what lives at once, counted by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgepress.export.graph.source_model import open_source
from edgepress.export.graph.trace import trace_graph
from edgepress.export.rknn.planning.footprint import measure_footprint
from edgepress.models.base.graph import Graph, Port
from edgepress.models.base.npu import GraphPart, load_npu_host_class, load_npu_spec


class LiveTensorModule(nn.Module):
    """Of n numbers: b is there besides x and a, then a goes and c comes, then the sum of all that is left."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component

    def forward(self, x: Tensor) -> Tensor:
        a = x + 1
        b = torch.cat([a, a])
        del a
        c = b.view(2, -1) * 2
        return c + b.view(2, -1)

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        return (torch.zeros(sizes["n"]),)


def test_what_lives_at_once_is_counted_through_views(tiny: Path) -> None:
    graph = Graph("steps", "vae", f"{__name__}:Steps", (Port("x", ("n",)),), (Port("y", (None, "n")),))
    found = measure_footprint(GraphPart("steps", graph), tiny / "vae", {"n": 100})
    assert found.live_elements == 100 + 3 * 200  # x, b, c, and the sum
    assert found.parameters == 0


@pytest.mark.slow
def test_parameters_are_those_that_the_traced_graph_has(tiny: Path) -> None:
    model = open_source(tiny)
    npu = load_npu_spec(model.family)
    axes = load_npu_host_class(npu)(model.configs(), (64, 64), 32, np.empty((0, 0), np.float16)).axis_sizes
    for name in ("image", "text_encoder"):
        graph = npu.graph(name)
        assert graph is not None
        part = GraphPart(name, graph, range(1, 2) if name in npu.stacks else None)
        found = measure_footprint(part, tiny / graph.component, axes)
        traced = trace_graph(graph, tiny / graph.component, sizes=axes, blocks=part.blocks).graph.initializers
        weights = {key: value for key, value in traced.items() if value.const_value is None}
        shapes = [value.shape for value in weights.values()]
        assert set(found.weight_elements) == set(weights)
        assert found.parameters == sum(math.prod(shape.numpy()) for shape in shapes if shape is not None)
        assert found.live_elements > 0
