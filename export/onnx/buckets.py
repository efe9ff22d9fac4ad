"""With which shapes a host asks each graph, for pictures of some sizes and prompts of all lengths up to one.

The host itself is asked: it runs with graphs that answer zeros. Graphs of the text alone know nothing of the picture;
all others are asked once for each shape that those are asked with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...models import Family
from ...models.host import Host
from ...models.reference import Arrays, Case
from ...runtime.buckets import Bucket, Shaped
from .golden import TIMESTEP, use

Axes = dict[str, int]


def shaped(models: Mapping[str, ir.Model], buckets: Mapping[str, Sequence[Bucket]]) -> dict[str, Shaped]:
    """Graphs by name, for picking the file that takes an input."""
    return {name: Shaped(ports(models[name]), found) for name, found in buckets.items()}


def dynamic(models: Mapping[str, ir.Model]) -> dict[str, list[Bucket]]:
    """One file a graph."""
    return {name: [Bucket(name, {})] for name in models}


def fixed(asked: Mapping[str, Sequence[Axes]]) -> dict[str, list[Bucket]]:
    """A file for each shape that a graph is asked with, such as transformer-N1536-L64."""
    return {
        name: [Bucket("-".join([name, *(f"{axis}{size}" for axis, size in axes.items())]), axes) for axes in found]
        for name, found in asked.items()
    }


def ports(model: ir.Model) -> dict[str, tuple[int | str, ...]]:
    """The axes of a graph's inputs: sizes, or names where they are dynamic."""
    found = {}
    for value in model.graph.inputs:
        assert value.name is not None
        assert value.shape is not None
        found[value.name] = tuple(axis if isinstance(axis, int) else str(axis) for axis in value.shape)
    return found


def asked(
    host: Host, family: Family, models: Mapping[str, ir.Model], sizes: Sequence[tuple[int, int]], tokens: int
) -> dict[str, list[Axes]]:
    """The axes that each graph of a family is asked with, each once; graphs that are not asked are not there.

    Args:
        sizes: height and width of pictures, in pixels. tokens: of the longest prompt.
    """
    prompts: dict[str, int] = {}
    for length in range(1, tokens + 1):
        reader = _Asked(models)
        host.encode(reader, np.zeros(length, np.int64))
        prompts.setdefault(str(reader.axes), length)
    found = _Asked(models)
    for size in sizes:
        latents = np.zeros(host.latent_shape(*size), np.float32)
        for length in prompts.values():
            use(host, found, Case(np.zeros(length, np.int64), latents, TIMESTEP), family)
    return found.axes


class _Asked:
    """Runs graphs by answering zeros, and keeps the axes of what they are asked with."""

    def __init__(self, models: Mapping[str, ir.Model]) -> None:
        self._models = models
        self.axes: dict[str, list[Axes]] = {}

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        model = self._models[name]
        axes = Shaped(ports(model), []).axes(inputs)
        if axes not in self.axes.setdefault(name, []):
            self.axes[name].append(axes)
        shape = model.graph.outputs[0].shape
        assert shape is not None
        return np.zeros(shape.evaluate(axes).numpy(), np.float32)
