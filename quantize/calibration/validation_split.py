"""Which prompts of a calibration are solved on, and which are held out to judge what was solved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...pipelines.sampling import batched
from ...prompts.prompt import Prompt

VALIDATION_SHARE = 4  # one prompt is held out for every four that images are generated for


@dataclass(frozen=True)
class PromptSplit:
    """The prompts of a calibration.

    Attributes:
        images: Prompts that images are generated for, to solve on.
        texts: Prompts for the components that only read the prompt, to solve on.
        held_out: Prompts that nothing is solved on. Images are generated for them too.
    """

    images: Sequence[Prompt]
    texts: Sequence[Prompt]
    held_out: Sequence[Prompt]


@dataclass(frozen=True)
class CalibrationBatch:
    """Prompts that run at once.

    Attributes:
        prompts: The prompts.
        validates: Whether they are held out.
    """

    prompts: Sequence[Prompt]
    validates: bool


def split_prompts(prompts: Sequence[Prompt], num_images: int, validates: bool) -> PromptSplit:
    """Splits the prompts of a calibration.

    Held out are the prompts after those that images are generated for. If there are too few, it is every fourth of them
    all, of less than four the last one, and of a single one none.

    Args:
        prompts: All prompts.
        num_images: How many of them, from the first, images are generated for.
        validates: Whether any are held out.
    """
    images = prompts[:num_images]
    if not validates:
        return PromptSplit(images, prompts, ())
    held_out = prompts[num_images:][: -(-num_images // VALIDATION_SHARE)]
    if len(held_out) * VALIDATION_SHARE < num_images:
        held_out = images[VALIDATION_SHARE - 1 :: VALIDATION_SHARE] or images[1:][-1:]
    ids = {prompt.id for prompt in held_out}
    solved, texts = ([prompt for prompt in part if prompt.id not in ids] for part in (images, prompts))
    return PromptSplit(solved, texts, held_out)


def plan_batches(solved: Sequence[Prompt], held_out: Sequence[Prompt], size: int) -> list[CalibrationBatch]:
    """Splits prompts into batches of at most `size`, with those that are held out last."""
    return [
        CalibrationBatch(batch, validates)
        for part, validates in ((solved, False), (held_out, True))
        for batch in batched(part, size)
    ]
