"""What most hosts have in common; a family's host overrides what its pipeline does otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class DefaultHost:
    """The part of a `Host` that is the same for most pipelines: flow matching, and classifier-free guidance above 1."""

    scheduler_class = "FlowMatchEulerDiscreteScheduler"
    passes_sigmas = True
    takes_guidance = True
    needs_guidance = False
    takes_negative_prompt = True
    decoder_graph = "vae_decoder"
    encoder_graph = ""
    image_refusal = ""
    floors_image_steps = False

    def compute_mu(self, image_tokens: int, steps: int) -> float | None:  # noqa: ARG002  some pipelines use them
        """Returns None: the scheduler's config says it."""
        return None

    def is_guided(self, guidance: float) -> bool:
        """Whether the scale is above 1, which makes the velocity that of the prompt alone."""
        return guidance > 1

    def choose_negative_prompt(self, text: str) -> str | None:
        """Returns the text, which may be empty."""
        return text

    def zero_prompt(self, prompt: Any) -> Any:
        """Not called, as negative prompts are always encoded."""
        raise NotImplementedError(type(prompt).__name__)

    def apply_guidance(
        self, velocity: NDArray[np.float32], negative: NDArray[np.float32], scale: float
    ) -> NDArray[np.float32]:
        """Returns n + s (v - n)."""
        return negative + type(negative.flat[0])(scale) * (velocity - negative)
