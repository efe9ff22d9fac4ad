"""What a family's components answer in torch, as diffusers and transformers have them: what graphs are held against.

Where a family has a host, it makes the inputs of the graphs, and a `Reference` says what they must give. Where it has
none, an `Observer` watches the pipeline paint, and says both.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from .family import Family

GraphOutputs = dict[str, NDArray[np.float32]]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class GoldenIO:
    """What a graph is given, and what it must give: arrays by the names of its ports."""

    graph: str
    inputs: Arrays
    outputs: Arrays


@dataclass(frozen=True)
class GoldenInput:
    """What a host is given: token ids (tokens,) int64, latents float32, and a timestep of the scheduler."""

    ids: NDArray[np.int64]
    latents: NDArray[np.float32]
    timestep: float


class ComponentReference(Protocol):
    """A family's function that runs a component as it is and says what each of its graphs must give."""

    def __call__(
        self, component: str, module: Any, case: GoldenInput, previous_outputs: Mapping[str, NDArray[np.float32]]
    ) -> GraphOutputs:
        """First outputs by the name of the graph; `found` are those of the components before."""


class PipelineObserver(Protocol):
    """A family's function that has a pipeline paint, and translates what its components are asked."""

    def __call__(self, pipeline: Any, prompt: str, size: tuple[int, int]) -> list[GoldenIO]:
        """One exchange for each graph of the pipeline; size: height and width in pixels.

        Raises:
            ValueError: the pipeline refuses the size.
        """


def load_reference(family: Family) -> ComponentReference:
    """The reference of a family that has a host, which names it as `module:function`."""
    return cast(ComponentReference, _load_named(family))


def load_observer(family: Family) -> PipelineObserver:
    """The observer of a family that has no host, which names it as `module:function`."""
    return cast(PipelineObserver, _load_named(family))


def _load_named(family: Family) -> Any:
    module, name = family.reference.split(":")
    return getattr(importlib.import_module(module), name)
