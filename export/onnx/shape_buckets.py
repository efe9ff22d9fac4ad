"""With which shapes a host asks each graph, for pictures of some sizes and prompts of all lengths up to one.

The host itself is asked: it runs with graphs that answer zeros. Graphs of the text alone know nothing of the picture;
all others are asked once for each shape that those are asked with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...models.base.family import Family
from ...models.base.host import Host
from ...models.base.reference import Arrays, GoldenInput
from ...runtime.onnx.shape_buckets import BucketedGraph, ShapeBucket
from ..verification.golden import GOLDEN_TIMESTEP, run_all_graphs

Axes = dict[str, int]


def build_bucketed_graphs(
    models: Mapping[str, ir.Model], buckets: Mapping[str, Sequence[ShapeBucket]]
) -> dict[str, BucketedGraph]:
    """Graphs by name, for picking the file that takes an input."""
    return {name: BucketedGraph(get_input_axes(models[name]), found) for name, found in buckets.items()}


def build_dynamic_buckets(models: Mapping[str, ir.Model]) -> dict[str, list[ShapeBucket]]:
    """One file a graph."""
    return {name: [ShapeBucket(name, {})] for name in models}


def build_fixed_buckets(shapes: Mapping[str, Sequence[Axes]]) -> dict[str, list[ShapeBucket]]:
    """A file for each shape that a graph is asked with, such as transformer-N1536-L64."""
    return {
        name: [ShapeBucket("-".join([name, *(f"{axis}{size}" for axis, size in axes.items())]), axes) for axes in found]
        for name, found in shapes.items()
    }


def get_input_axes(model: ir.Model) -> dict[str, tuple[int | str, ...]]:
    """The axes of a graph's inputs: sizes, or names where they are dynamic."""
    axes = {}
    for value in model.graph.inputs:
        assert value.name is not None
        assert value.shape is not None
        axes[value.name] = tuple(axis if isinstance(axis, int) else str(axis) for axis in value.shape)
    return axes


def collect_shapes(
    host: Host, family: Family, models: Mapping[str, ir.Model], sizes: Sequence[tuple[int, int]], tokens: int
) -> dict[str, list[Axes]]:
    """The axes that each graph of a family is asked with, each once; graphs that are not asked are not there.

    Args:
        sizes: height and width of pictures, in pixels. tokens: of the longest prompt.
    """
    lengths: dict[str, int] = {}
    for length in range(1, tokens + 1):
        text_recorder = ShapeRecorder(models)
        host.encode_prompt(text_recorder, np.zeros(length, np.int64))
        lengths.setdefault(str(text_recorder.axes), length)
    recorder = ShapeRecorder(models)
    for size in sizes:
        latents = np.zeros(host.latent_shape(*size), np.float32)
        for length in lengths.values():
            run_all_graphs(host, recorder, GoldenInput(np.zeros(length, np.int64), latents, GOLDEN_TIMESTEP), family)
    return recorder.axes


class ShapeRecorder:
    """Runs graphs by answering zeros, and keeps the axes of what they are asked with."""

    def __init__(self, models: Mapping[str, ir.Model]) -> None:
        self._models = models
        self.axes: dict[str, list[Axes]] = {}

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        model = self._models[name]
        axes = BucketedGraph(get_input_axes(model), []).axis_sizes(inputs)
        if axes not in self.axes.setdefault(name, []):
            self.axes[name].append(axes)
        shape = model.graph.outputs[0].shape
        assert shape is not None
        return np.zeros(shape.evaluate(axes).numpy(), np.float32)
