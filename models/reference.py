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

Answers = dict[str, NDArray[np.float32]]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Exchange:
    """What a graph is given, and what it must give: arrays by the names of its ports."""

    graph: str
    inputs: Arrays
    outputs: Arrays


@dataclass(frozen=True)
class Case:
    """What a host is given: token ids (tokens,) int64, latents float32, and a timestep of the scheduler."""

    ids: NDArray[np.int64]
    latents: NDArray[np.float32]
    timestep: float


class Reference(Protocol):
    """A family's function that runs a component as it is and says what each of its graphs must give."""

    def __call__(self, component: str, module: Any, case: Case, found: Mapping[str, NDArray[np.float32]]) -> Answers:
        """First outputs by the name of the graph; `found` are those of the components before."""


class Observer(Protocol):
    """A family's function that has a pipeline paint, and translates what its components are asked."""

    def __call__(self, pipeline: Any, prompt: str, size: tuple[int, int]) -> list[Exchange]:
        """One exchange for each graph of the pipeline; size: height and width in pixels.

        Raises:
            ValueError: the pipeline refuses the size.
        """


def reference_of(family: Family) -> Reference:
    """The reference of a family that has a host, which names it as `module:function`."""
    return cast(Reference, _named(family))


def observer_of(family: Family) -> Observer:
    """The observer of a family that has no host, which names it as `module:function`."""
    return cast(Observer, _named(family))


def _named(family: Family) -> Any:
    module, name = family.reference.split(":")
    return getattr(importlib.import_module(module), name)
