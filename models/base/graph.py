"""The types that describe the graphs of a family: what a device runs, one after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    Attributes:
        name: Its name in the exported graph.
        axes: A name for each dynamic axis, None for each axis that the component's config fixes. The axis of an output
            can be an expression of an input's, such as `8*h`.
        dtype: Numpy name of its dtype.
        config_key: Key of the component's config. If set, the port exists only where that key is true.
    """

    name: str
    axes: tuple[str | None, ...]
    dtype: str = "float32"
    config_key: str = ""


@dataclass(frozen=True)
class Graph:
    """A part of a pipeline that is exported as one graph.

    Attributes:
        name: Its name; also that of its file.
        component: Folder of the component whose weights it has.
        module: `package.module:Class` of the torch module that is traced. The module is made from the component, keeps
            it as `model`, takes the inputs in their order, and has a method `example(sizes)` that makes inputs for
            sizes of the dynamic axes.
        inputs: Its inputs, in order.
        outputs: Its outputs, in order.
        optional: Whether some pipelines of the class lack the component.
        submodule: Module of the component that only this graph runs, and that quantization may have removed.
        read_blocks: Numbers, from 1 on and ascending, of the repeated blocks behind which the module reads states. The
            module is then made from the component and these numbers, which are smaller where tracing leaves blocks
            out, and runs no block behind the last.
    """

    name: str
    component: str
    module: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    optional: bool = False
    submodule: str = ""
    read_blocks: tuple[int, ...] = ()

    @property
    def dynamic_axes(self) -> tuple[str, ...]:
        """Names of the dynamic axes of the inputs, without duplicates, in order."""
        return tuple(dict.fromkeys(axis for port in self.inputs for axis in port.axes if axis))

    def for_config(self, config: Mapping[str, Any]) -> Graph:
        """Returns the graph for a component's config, without the inputs that the config switches off."""
        ports = tuple(port for port in self.inputs if not port.config_key or config.get(port.config_key))
        return replace(self, inputs=ports)
