"""The vocabulary in which the graphs of a family are described: what a device runs, one after another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    axes: one name for each dynamic axis, None for each axis that the component's config fixes. An output's axis may be
    a product of an input's, such as `8*h`. dtype: in numpy's words.
    """

    name: str
    axes: tuple[str | None, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Graph:
    """A part of a pipeline that becomes one graph of tensors.

    component: the folder of its weights. module: `package.module:Class` of a torch module that is made from the
    component, keeps it as `model`, takes the inputs in their order, and has `example(sizes)`, which makes inputs for
    sizes of the dynamic axes.
    """

    name: str
    component: str
    module: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """The dynamic axes of the inputs, each once, in order."""
        return tuple(dict.fromkeys(axis for port in self.inputs for axis in port.axes if axis))
