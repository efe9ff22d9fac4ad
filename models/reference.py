"""What a family's components answer in torch, as diffusers and transformers have them: what graphs are held against."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from .family import Family

Answers = dict[str, NDArray[np.float32]]


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


def reference_of(family: Family) -> Reference:
    """The reference of a family, which names it as `module:function`."""
    module, name = family.reference.split(":")
    return cast(Reference, getattr(importlib.import_module(module), name))
