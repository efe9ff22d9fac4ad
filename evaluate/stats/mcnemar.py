"""McNemar's exact test: whether one of two pictures is right more often than chance would have it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..results.schema import McNemarResult


def mcnemar_test(reference: Sequence[float], variant: Sequence[float]) -> McNemarResult:
    """The test of paired scores of 0 or 1; pairs with equal scores say nothing.

    Under chance the right one of two unequal scores is the reference's in half of the cases: two-sided, exact binomial.
    Pictures of one prompt count as if they were independent; the interval of the drop does not take them so.
    """
    only_reference = sum(a > b for a, b in zip(reference, variant, strict=True))
    only_variant = sum(a < b for a, b in zip(reference, variant, strict=True))
    unequal, fewer = only_reference + only_variant, min(only_reference, only_variant)
    tail = sum(math.comb(unequal, k) for k in range(fewer + 1))
    return McNemarResult(
        only_reference=only_reference, only_variant=only_variant, p_value=min(1.0, 2 * tail / 2**unequal)
    )
