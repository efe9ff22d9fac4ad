"""Reference outputs: what the components of diffusers and transformers compute, against which graphs are verified.

Either the family's host makes the inputs of the graphs and a `ComponentReference` computes the expected outputs, or a
`PipelineObserver` records both while the pipeline of diffusers generates an image.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from .family import Family
from .prompt_tokens import TokensByTokenizer

GraphOutputs = dict[str, NDArray[np.float32]]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class GoldenIO:
    """Golden inputs and expected outputs of a graph.

    Attributes:
        graph: Name of the graph.
        inputs: Input arrays by port name.
        outputs: Output arrays by port name.
    """

    graph: str
    inputs: Arrays
    outputs: Arrays


@dataclass(frozen=True)
class GoldenInput:
    """Golden input of a host.

    Attributes:
        tokens: Tokens of the prompt, by tokenizer.
        latents: Latents.
        timestep: Timestep of the scheduler.
    """

    tokens: TokensByTokenizer
    latents: NDArray[np.float32]
    timestep: float


class ComponentReference(Protocol):
    """Function of a family that runs a component in torch."""

    def __call__(
        self, component: str, module: Any, case: GoldenInput, previous_outputs: Mapping[str, NDArray[np.float32]]
    ) -> GraphOutputs:
        """Computes the expected outputs of the component's graphs.

        Args:
            component: Name of the component.
            module: The component.
            case: What the host is given.
            previous_outputs: Outputs of the graphs of earlier components, by graph name.

        Returns:
            First outputs by graph name.
        """


class PipelineObserver(Protocol):
    """Function of a family that runs a pipeline and records what its components compute."""

    def __call__(self, pipeline: Any, prompt: str, size: tuple[int, int]) -> list[GoldenIO]:
        """Generates an image and returns golden inputs and outputs for each graph.

        Args:
            pipeline: The diffusers pipeline.
            prompt: Prompt of the image.
            size: Height and width in pixels.

        Raises:
            ValueError: The pipeline does not support the size.
        """


def load_reference(family: Family) -> ComponentReference:
    """Loads the reference of a family that has one."""
    return cast(ComponentReference, _load_named(family.reference))


def load_observer(family: Family) -> PipelineObserver:
    """Loads the observer of a family that has one."""
    return cast(PipelineObserver, _load_named(family.observer))


def _load_named(path: str) -> Any:
    module, name = path.split(":")
    return getattr(importlib.import_module(module), name)
