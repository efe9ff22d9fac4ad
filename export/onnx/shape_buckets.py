"""The shapes with which a host runs each graph, for some image sizes and all prompt lengths up to a maximum.

They are recorded from the host itself, which runs with graphs that return zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...models.base.family import Family
from ...models.base.host import Host
from ...models.base.prompt_tokens import make_trial_tokens
from ...models.base.reference import Arrays, GoldenInput
from ...runtime.onnx.shape_buckets import BucketedGraph, ShapeBucket
from ..verification.golden import GOLDEN_TIMESTEP, run_all_graphs

AxisSizes = dict[str, int]


def build_bucketed_graphs(
    models: Mapping[str, ir.Model], buckets: Mapping[str, Sequence[ShapeBucket]]
) -> dict[str, BucketedGraph]:
    """Returns graphs with the files that were made of them, by name."""
    return {name: BucketedGraph(get_input_axes(models[name]), files) for name, files in buckets.items()}


def build_dynamic_buckets(models: Mapping[str, ir.Model]) -> dict[str, list[ShapeBucket]]:
    """Returns one bucket with dynamic axes for each graph."""
    return {name: [ShapeBucket(name, {})] for name in models}


def build_fixed_buckets(shapes: Mapping[str, Sequence[AxisSizes]]) -> dict[str, list[ShapeBucket]]:
    """Returns a bucket for each shape of each graph, with names such as transformer-N1536-L64."""
    return {
        name: [
            ShapeBucket("-".join([name, *(f"{axis}{size}" for axis, size in axis_sizes.items())]), axis_sizes)
            for axis_sizes in graph_shapes
        ]
        for name, graph_shapes in shapes.items()
    }


def get_input_axes(model: ir.Model) -> dict[str, tuple[int | str, ...]]:
    """Returns the axes of each input: sizes, or names where they are dynamic."""
    axes = {}
    for value in model.graph.inputs:
        assert value.name is not None
        assert value.shape is not None
        axes[value.name] = tuple(axis if isinstance(axis, int) else str(axis) for axis in value.shape)
    return axes


def collect_shapes(
    host: Host,
    family: Family,
    models: Mapping[str, ir.Model],
    sizes: Sequence[tuple[int, int]],
    max_prompt_tokens: int,
) -> dict[str, list[AxisSizes]]:
    """Returns the different axis sizes with which each graph is run. Graphs that are never run are left out.

    Args:
        host: The family's host.
        family: The family, with the graphs to export.
        models: Traced graphs by name.
        sizes: Heights and widths of images in pixels.
        max_prompt_tokens: Tokens of the longest prompt.
    """
    lengths: dict[str, int] = {}  # one prompt length for each shape that the graphs of the text see
    for length in range(1, max_prompt_tokens + 1):
        text_recorder = ShapeRecorder(models)
        host.encode_prompt(text_recorder, make_trial_tokens(host.prompt_formats, length))
        lengths.setdefault(str(text_recorder.shapes), length)
    recorder = ShapeRecorder(models)
    for size in sizes:
        latents = np.zeros(host.latent_shape(*size), np.float32)
        for length in lengths.values():
            tokens = make_trial_tokens(host.prompt_formats, length)
            golden_input = GoldenInput(tokens, latents, GOLDEN_TIMESTEP)
            run_all_graphs(host, recorder, golden_input, family)
    return recorder.shapes


class ShapeRecorder:
    """Runs graphs by returning zeros, and records the axis sizes of their inputs.

    Args:
        models: Traced graphs by name.

    Attributes:
        shapes: The different axis sizes of each graph, in order of their first use.
    """

    def __init__(self, models: Mapping[str, ir.Model]) -> None:
        self._models = models
        self.shapes: dict[str, list[AxisSizes]] = {}

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        """Returns zeros in the shape of a graph's first output."""
        return self.run(name, inputs)[0]

    def run(self, name: str, inputs: Arrays) -> list[NDArray[np.float32]]:
        """Returns zeros in the shapes of a graph's outputs."""
        model = self._models[name]
        axis_sizes = BucketedGraph(get_input_axes(model), []).axis_sizes(inputs)
        if axis_sizes not in self.shapes.setdefault(name, []):
            self.shapes[name].append(axis_sizes)
        shapes = [output.shape for output in model.graph.outputs]
        return [np.zeros(shape.evaluate(axis_sizes).numpy(), np.float32) for shape in shapes if shape is not None]
