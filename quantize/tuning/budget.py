"""How many samples and steps a tuning takes, as a function of the recipe and the model alone.

Minutes are those of an assumed machine. What this one takes depends on it, and the result does not.
"""

from __future__ import annotations

from dataclasses import dataclass

ASSUMED_FLOPS = 3e11  # per second: two cores of a server that multiply in bfloat16, with all that is not a product
AUTO_STEPS = 600
AUTO_MINUTES = 30.0  # of the assumed machine, beyond which `auto` does not tune
AUTO_SEEDS = 3  # images of each prompt that is trained on
REFERENCE_SHARE = 0.25  # of given minutes, for the reference's samples
BATCH = 16  # samples of a step
BLOCK_BATCH = 4  # calls of the denoiser in a step that trains a block
MAX_BLOCK_IMAGES = 16  # whose blocks' inputs and outputs are stored
TRAINING_FACTOR = 3  # a backward pass computes two products for each one of the forward pass
VALIDATION_INTERVAL = 50  # steps


@dataclass(frozen=True)
class TuningBudget:
    """What a tuning takes.

    Attributes:
        prompts: Number of prompts, of which some validate.
        seeds: Images of each prompt that is trained on.
        steps: Number of steps for each scheme.
    """

    prompts: int
    seeds: int
    steps: int


def plan_block_budget(minutes: float, flops_per_call: float, calls_per_image: int, num_schemes: int) -> tuple[int, int]:
    """Plans a tuning block by block.

    Args:
        minutes: Of the assumed machine.
        flops_per_call: Operations of a call of the denoiser.
        calls_per_image: Calls of the denoiser for an image.
        num_schemes: How many schemes are tuned.

    Returns:
        The number of images, of which one validates, and the number of steps for each block.
    """
    available, image_flops = minutes * 60 * ASSUMED_FLOPS, calls_per_image * flops_per_call
    images = max(2, min(MAX_BLOCK_IMAGES, int(REFERENCE_SHARE * available / image_flops)))
    remaining = max(0.0, available - images * image_flops)
    return images, max(1, int(remaining / (num_schemes * TRAINING_FACTOR * BLOCK_BATCH * flops_per_call)))


def plan_budget(
    tune: str | float, flops_per_call: float, calls_per_image: int, num_prompts: int, num_schemes: int
) -> TuningBudget | None:
    """Plans a tuning; None if `auto` would take too long.

    Args:
        tune: `auto`, or minutes.
        flops_per_call: Operations of the denoiser for one sample.
        calls_per_image: Calls of the denoiser for an image.
        num_prompts: Prompts of the calibration.
        num_schemes: How many schemes are tuned.
    """
    step_flops = TRAINING_FACTOR * BATCH * flops_per_call
    image_flops = calls_per_image * flops_per_call
    if tune == "auto":
        total = AUTO_SEEDS * num_prompts * image_flops + num_schemes * AUTO_STEPS * step_flops
        is_affordable = total <= AUTO_MINUTES * 60 * ASSUMED_FLOPS
        return TuningBudget(num_prompts, AUTO_SEEDS, AUTO_STEPS) if is_affordable else None
    available = float(tune) * 60 * ASSUMED_FLOPS
    images = max(2, int(REFERENCE_SHARE * available / image_flops))
    prompts = min(images, num_prompts)
    seeds = max(1, min(AUTO_SEEDS, images // prompts))
    remaining = max(0.0, available - prompts * seeds * image_flops)
    return TuningBudget(prompts, seeds, max(1, int(remaining / (num_schemes * step_flops))))
