"""Which prompts of a calibration are solved on, and which are held out to judge what was solved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...pipelines.sampling import batched
from ...prompts.prompt import Prompt

VALIDATION_SHARE = 4  # every fourth prompt is held out


@dataclass(frozen=True)
class CalibrationBatch:
    """Prompts that run at once.

    Attributes:
        prompts: The prompts.
        validates: Whether they are held out.
    """

    prompts: Sequence[Prompt]
    validates: bool


def plan_batches(prompts: Sequence[Prompt], size: int, validates: bool) -> list[CalibrationBatch]:
    """Splits prompts into batches of at most `size`, with those that are held out last.

    Args:
        prompts: The prompts. Of less than four, the last one is held out; a single one is not.
        size: The largest number of prompts in a batch.
        validates: Whether any are held out.
    """
    held_out = {*range(VALIDATION_SHARE - 1, len(prompts), VALIDATION_SHARE)} or {*range(1, len(prompts))[-1:]}
    held_out = held_out if validates else set()
    solved = [prompt for number, prompt in enumerate(prompts) if number not in held_out]
    rest = [prompt for number, prompt in enumerate(prompts) if number in held_out]
    return [
        CalibrationBatch(batch, is_held_out)
        for part, is_held_out in ((solved, False), (rest, True))
        for batch in batched(part, size)
    ]
