"""McNemar's exact test: whether one of two paired systems is right more often than chance explains."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt


class McNemarResult(BaseModel):
    """Discordant pairs, in which exactly one of the two images is right, and the p-value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    only_reference: NonNegativeInt = Field(description="Number of pairs in which only the reference is right.")
    only_variant: NonNegativeInt = Field(description="Number of pairs in which only the variant is right.")
    p_value: float = Field(ge=0, le=1, description="Exact two-sided p-value.")


def mcnemar_test(reference: Sequence[float], variant: Sequence[float]) -> McNemarResult:
    """Tests paired scores of 0 or 1.

    Under the null hypothesis each system is the right one in half of the discordant pairs; the p-value is that of the
    two-sided exact binomial test. Images of one prompt count as independent, unlike in the interval of the drop.

    Args:
        reference: the reference's scores.
        variant: the variant's scores, in the same order.
    """
    only_reference = sum(a > b for a, b in zip(reference, variant, strict=True))
    only_variant = sum(a < b for a, b in zip(reference, variant, strict=True))
    discordant, smaller = only_reference + only_variant, min(only_reference, only_variant)
    tail = sum(math.comb(discordant, k) for k in range(smaller + 1))
    p_value = min(1.0, 2 * tail / 2**discordant)
    return McNemarResult(only_reference=only_reference, only_variant=only_variant, p_value=p_value)
