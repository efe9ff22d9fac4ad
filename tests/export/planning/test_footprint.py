"""Footprints: parameters as in the traced graph, and live elements counted by hand."""

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
from edgepress.export.graph.trace_cache import trace_cached
from edgepress.export.planning.footprint import measure_footprint
from edgepress.models.base.graph import Graph, Port
from edgepress.models.base.npu import GraphPart, load_npu_host_class, load_npu_spec


class LiveTensorModule(nn.Module):
    """Takes n elements: x, a and b are alive, then a is freed and c is added, then the sum."""

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


def test_live_elements_count_a_storage_once_for_all_its_views(tiny: Path) -> None:
    graph = Graph("steps", "vae", f"{__name__}:LiveTensorModule", (Port("x", ("n",)),), (Port("y", (None, "n")),))
    footprint = measure_footprint(GraphPart("steps", graph), tiny / "vae", {"n": 100})
    assert footprint.live_elements == 100 + 3 * 200  # x, b, c, and the sum
    assert footprint.parameters == 0


class ConvolvingModule(nn.Module):
    """A convolution whose weight is a view of a parameter, a linear layer, and attention."""

    def __init__(self, component: Any) -> None:
        super().__init__()
        self.model = component
        self.kernels, self.linear = nn.Parameter(torch.zeros(2, 4, 3, 3, 3)), nn.Linear(6, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(nn.functional.conv2d(x, self.kernels[0], padding=1))
        return nn.functional.scaled_dot_product_attention(x, x, x)

    def example(self, sizes: Mapping[str, int]) -> tuple[Tensor]:
        return (torch.zeros(1, 3, sizes["n"], 6),)


def test_attention_is_no_convolution(tiny: Path) -> None:
    port = Port("x", (1, 3, "n", 6))
    graph = Graph("mixed", "vae", f"{__name__}:ConvolvingModule", (port,), (port,))
    footprint = measure_footprint(GraphPart("mixed", graph), tiny / "vae", {"n": 10})
    assert footprint.convolution_weights == {"kernels"}
    assert footprint.convolution_flops == 2 * (10 * 6) * 4 * 3 * 9
    assert footprint.linear_flops == 2 * (4 * 10) * 6 * 6
    assert footprint.other_flops == footprint.convolution_flops + 4 * 4 * 10 * 10 * 6


@pytest.mark.slow
def test_parameters_are_those_of_the_traced_graph(tiny: Path) -> None:
    model = open_source(tiny)
    npu = load_npu_spec(model.family)
    axes = load_npu_host_class(npu)(model.configs, (64, 64), 32, np.empty((0, 0), np.float16)).axis_sizes
    for name in ("image", "text_encoder"):
        graph = npu.graph(name)
        assert graph is not None
        part = GraphPart(name, graph, range(1, 2) if name in npu.stacks else None)
        footprint = measure_footprint(part, tiny / graph.component, axes)
        traced = trace_cached(graph, tiny / graph.component, sizes=axes, blocks=part.blocks).graph.initializers
        weights = {key: value for key, value in traced.items() if value.const_value is None}
        shapes = [value.shape for value in weights.values()]
        assert set(footprint.weight_elements) == set(weights)
        assert footprint.parameters == sum(math.prod(shape.numpy()) for shape in shapes if shape is not None)
        assert footprint.live_elements > 0
