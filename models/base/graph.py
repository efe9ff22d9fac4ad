"""The vocabulary in which the graphs of a family are described: what a device runs, one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    axes: one name for each dynamic axis, None for each axis that the component's config fixes. An output's axis may be
    computed of an input's, such as `8*h`. dtype: in numpy's words. when: a key of the component's config; where that
    is false or missing, the graph has no such port.
    """

    name: str
    axes: tuple[str | None, ...]
    dtype: str = "float32"
    config_key: str = ""


@dataclass(frozen=True)
class Graph:
    """A part of a pipeline that becomes one graph of tensors.

    component: the folder of its weights. module: `package.module:Class` of a torch module that is made from the
    component, keeps it as `model`, takes the inputs in their order, and has `example(sizes)`, which makes inputs for
    sizes of the dynamic axes. optional: whether there are pipelines of the class without the component. part: a module
    of the component that this graph alone runs, and that a pressed component may have lost.
    """

    name: str
    component: str
    module: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    optional: bool = False
    submodule: str = ""

    @property
    def dynamic_axes(self) -> tuple[str, ...]:
        """The dynamic axes of the inputs, each once, in order."""
        return tuple(dict.fromkeys(axis for port in self.inputs for axis in port.axes if axis))

    def for_config(self, config: Mapping[str, Any]) -> Graph:
        """The graph of a component with a config, which may want fewer inputs."""
        return replace(
            self, inputs=tuple(port for port in self.inputs if not port.config_key or config.get(port.config_key))
        )
