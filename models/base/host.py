"""The host of a family: what runs in numpy around its graphs, and how it is loaded.

A host knows the configs of its family and no weights. It never imports torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from ...common.errors import UserError
from ...common.plausible_values import find_implausible_value
from .family import Family
from .prompt_tokens import PromptFormat, TokensByTokenizer
from .tiling import DecoderStages

if TYPE_CHECKING:  # commands that generate no image start without numpy
    import numpy as np
    from numpy.typing import NDArray

RunAll: TypeAlias = "Callable[[str, dict[str, NDArray[Any]]], Sequence[NDArray[np.float32]]]"


class RunGraph(Protocol):
    """Runs graphs by name. Floats are float32, whatever a graph computes in."""

    def __call__(self, name: str, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Returns the first output of a graph."""

    def run(self, name: str, inputs: dict[str, NDArray[Any]]) -> Sequence[NDArray[np.float32]]:
        """Returns all outputs of a graph, in order."""


class GraphRunner:
    """Runs graphs by name with a function.

    Args:
        run: Runs the graph of a name and returns all its outputs, in order.
    """

    def __init__(self, run: RunAll) -> None:
        self.run = run

    def __call__(self, name: str, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Returns the first output of a graph."""
        return self.run(name, inputs)[0]


def run_first_outputs(run: Callable[[str, dict[str, NDArray[Any]]], NDArray[np.float32]]) -> GraphRunner:
    """Returns a runner of graphs that have one output."""
    return GraphRunner(lambda name, inputs: (run(name, inputs),))


class Host(Protocol):
    """Prepares the inputs of a family's graphs and reads their outputs.

    Args:
        configs: Configs of the components and of the scheduler, by folder name.

    Attributes:
        prompt_formats: How the pipeline turns a prompt into tokens, for each of its tokenizers.
        scheduler_class: The scheduler that the runtime has for the pipeline.
        passes_sigmas: Whether the pipeline gives its scheduler the sigmas 1 to 1/steps, or lets it choose.
        takes_guidance: Whether a guidance scale changes anything.
        needs_guidance: Whether the denoiser was distilled with a guidance scale, and never saw 0.
        takes_negative_prompt: Whether the pipeline takes one.
        decoder_graph: Name of the graph that decodes latents; its input and output are (1, channels, height, width).
        decoder_stages: The graphs that decode in tiles; None: there are none.
        encoder_graph: Name of the graph that encodes an image, which is exported on request; empty: there is none.
        image_refusal: Why images do not start from another one, as a sentence; empty where there is an `encoder_graph`.
        floors_image_steps: Whether the pipeline rounds down how many steps it does from an image; others round down how
            many they skip.
    """

    prompt_formats: Sequence[PromptFormat]
    scheduler_class: str
    passes_sigmas: bool
    takes_guidance: bool
    needs_guidance: bool
    takes_negative_prompt: bool
    decoder_graph: str
    decoder_stages: DecoderStages | None
    encoder_graph: str
    image_refusal: str
    floors_image_steps: bool

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

    def compute_mu(self, image_tokens: int, steps: int) -> float | None:
        """Returns the shift that the pipeline gives its scheduler; None: the one that the scheduler's config says."""

    def encode_prompt(self, run: RunGraph, tokens: TokensByTokenizer) -> Any:
        """Encodes a prompt.

        Args:
            run: Runs the graphs.
            tokens: Tokens of the prompt, by tokenizer.

        Returns:
            What `predict_velocity` needs of the prompt.
        """

    def predict_velocity(
        self, run: RunGraph, latents: NDArray[np.float32], timestep: float, prompt: Any, guidance: float = 0.0
    ) -> NDArray[np.float32]:
        """Returns what the denoiser predicts, of the shape of `latents`, at a timestep of the scheduler.

        Args:
            run: Runs the graphs.
            latents: Latents, as the scheduler scales them.
            timestep: Timestep of the scheduler.
            prompt: Output of `encode_prompt`.
            guidance: Scale that a distilled denoiser takes; others ignore it.
        """

    def is_guided(self, guidance: float) -> bool:
        """Whether the pipeline runs its denoiser on a negative prompt too, at a guidance scale."""

    def choose_negative_prompt(self, text: str) -> str | None:
        """Returns what the pipeline encodes in place of a negative prompt, which may be empty; None: `zero_prompt`."""

    def zero_prompt(self, prompt: Any) -> Any:
        """Returns a prompt whose states are zeros, of the shape of an encoded prompt."""

    def apply_guidance(
        self, velocity: NDArray[np.float32], negative: NDArray[np.float32], scale: float
    ) -> NDArray[np.float32]:
        """Returns the velocity that classifier-free guidance makes of those of a prompt and of a negative prompt."""

    def decode_latents(self, run: RunGraph, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Decodes denoised latents to an image (height, width, 3)."""

    def encode_image(self, run: RunGraph, image: NDArray[np.uint8], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encodes an image (height, width, 3) to latents, drawn from their distribution with noise of their shape."""


def load_host(family: Family, configs: Mapping[str, Mapping[str, Any]]) -> Host:
    """Creates the host of a family.

    Args:
        family: The family, which names the host's class.
        configs: Configs of the components and of the scheduler, by folder name.

    Raises:
        UserError: The family has no host.
        ValueError: No prompt has room in the position tables, or a number is none that a model has.
    """
    if not family.host:
        raise UserError(
            f"edgepress cannot generate images with {family.pipeline_class}; it only exports the graphs. "
            "Run them with a host of your own (docs/add-a-model.md)."
        )
    for component, config in configs.items():
        implausible = find_implausible_value(config) if isinstance(config, Mapping) else ""
        if implausible:
            raise ValueError(f"{component}: {implausible}")
    module, name = family.host.split(":")
    host = cast(Host, getattr(importlib.import_module(module), name)(configs))
    if min(prompt_format.max_tokens for prompt_format in host.prompt_formats) < 1:
        raise ValueError("the position tables leave no token for a prompt")
    return host
