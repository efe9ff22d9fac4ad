"""What the host computes around a family's graphs: the interface that the runtime paints through, and how it is found.

A host knows its family's configs and no weights. It is numpy alone: torch need not be there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from .family import Family
from .tiling import DecoderStages

# Runs a graph by its name and gives its first output; float outputs are float32 whatever the graph computes in.
RunGraph = Callable[[str, dict[str, NDArray[Any]]], NDArray[np.float32]]


class Host(Protocol):
    """A family's host, made from `configs`: the config dicts of its components and of its scheduler, by folder name.

    max_tokens: of a prompt, as the pipeline cuts it. template: variables that the pipeline gives the chat template.
    decoder: the graph that makes the picture, whose one input and output are (1, channels, height, width). tiles: the
    graphs that do so in tiles. encoder: the graph that makes latents of a picture, exported where it is asked for.
    native: the picture's side in pixels that the pipeline was made for.
    """

    max_tokens: int
    chat_template_kwargs: Mapping[str, Any]
    decoder_graph: str
    decoder_stages: DecoderStages
    encoder_graph: str

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None: ...

    @property
    def native_resolution(self) -> int: ...

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Of the noise to begin with; raises UserError where the size cannot be painted."""

    def count_image_tokens(self, height: int, width: int) -> int:
        """How many tokens a picture has for the schedule's shift."""

    def encode_prompt(self, run: RunGraph, ids: NDArray[np.int64]) -> Any:
        """What the later steps need of a prompt, given its token ids (tokens,)."""

    def predict_velocity(
        self, run: RunGraph, latents: NDArray[np.float32], timestep: float, prompt: Any
    ) -> NDArray[np.float32]:
        """The velocity at a timestep of the scheduler; float32, of the latents' shape."""

    def decode_latents(self, run: RunGraph, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The picture (height, width, 3) of finished latents."""

    def encode_image(self, run: RunGraph, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The latents of a picture (height, width, 3)."""


def load_host(family: Family, configs: Mapping[str, Mapping[str, Any]]) -> Host:
    """The host of a family, which names it as `module:class`.

    Raises:
        UserError: the family has none.
    """
    if not family.host:
        raise UserError(
            f"Nothing here paints with graphs of the class {family.pipeline_class}; run them with a host of your own "
            "(docs/add-a-model.md says what one computes)."
        )
    module, name = family.host.split(":")
    return cast(Host, getattr(importlib.import_module(module), name)(configs))
