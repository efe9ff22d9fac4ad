"""The host of a family: what runs in numpy around its graphs, and how it is loaded.

A host knows the configs of its family and no weights. It never imports torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from ...common.errors import UserError
from .family import Family
from .tiling import DecoderStages

if TYPE_CHECKING:  # commands that generate no image start without numpy
    import numpy as np
    from numpy.typing import NDArray

# Runs the graph of a name and returns its first output. Floats are float32, whatever the graph computes in.
RunGraph: TypeAlias = "Callable[[str, dict[str, NDArray[Any]]], NDArray[np.float32]]"


class Host(Protocol):
    """Prepares the inputs of a family's graphs and reads their outputs.

    Args:
        configs: Configs of the components and of the scheduler, by folder name.

    Attributes:
        max_tokens: Number of tokens at which prompts are truncated: where the pipeline does it, or where the position
            tables of its components end.
        chat_template_kwargs: Variables that the pipeline passes to the chat template.
        decoder_graph: Name of the graph that decodes latents; its input and output are (1, channels, height, width).
        decoder_stages: The graphs that decode in tiles.
        encoder_graph: Name of the graph that encodes an image, which is exported on request.
    """

    max_tokens: int
    chat_template_kwargs: Mapping[str, Any]
    decoder_graph: str
    decoder_stages: DecoderStages
    encoder_graph: str

    def __init__(self, configs: Mapping[str, Mapping[str, Any]]) -> None: ...

    @property
    def native_resolution(self) -> int:
        """Side in pixels of the images that the pipeline was trained for."""

    @property
    def size_multiple(self) -> int:
        """Number of pixels that the sides of an image are multiples of."""

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Returns the shape of the initial noise.

        Raises:
            UserError: The pipeline does not support the size.
        """

    def count_image_tokens(self, height: int, width: int) -> int:
        """Returns the number of image tokens, from which the scheduler computes its shift."""

    def encode_prompt(self, run: RunGraph, ids: NDArray[np.int64]) -> Any:
        """Encodes a prompt.

        Args:
            run: Runs the graphs.
            ids: Token ids, (tokens,).

        Returns:
            What `predict_velocity` needs of the prompt.
        """

    def predict_velocity(
        self, run: RunGraph, latents: NDArray[np.float32], timestep: float, prompt: Any
    ) -> NDArray[np.float32]:
        """Returns the velocity, of the shape of `latents`, at a timestep of the scheduler."""

    def apply_guidance(
        self, velocity: NDArray[np.float32], negative: NDArray[np.float32], scale: float
    ) -> NDArray[np.float32]:
        """Returns the velocity that classifier-free guidance makes of those of a prompt and of a negative prompt."""

    def decode_latents(self, run: RunGraph, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Decodes denoised latents to an image (height, width, 3)."""

    def encode_image(self, run: RunGraph, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encodes an image (height, width, 3) to latents."""


def load_host(family: Family, configs: Mapping[str, Mapping[str, Any]]) -> Host:
    """Creates the host of a family.

    Args:
        family: The family, which names the host's class.
        configs: Configs of the components and of the scheduler, by folder name.

    Raises:
        UserError: The family has no host.
    """
    if not family.host:
        raise UserError(
            f"edgepress cannot generate images with {family.pipeline_class}; it only exports the graphs. "
            "Run them with a host of your own (docs/add-a-model.md)."
        )
    module, name = family.host.split(":")
    return cast(Host, getattr(importlib.import_module(module), name)(configs))
