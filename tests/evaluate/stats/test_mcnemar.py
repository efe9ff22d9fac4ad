from __future__ import annotations

import pytest
from scipy.stats import binomtest

from edgepress.evaluate.stats.mcnemar import mcnemar_test


@pytest.mark.parametrize(("only_reference", "only_variant"), [(1, 0), (5, 0), (0, 6), (9, 2), (7, 7), (40, 61)])
def test_the_p_value_is_that_of_the_exact_binomial_test(only_reference: int, only_variant: int) -> None:
    reference = [1.0] * only_reference + [0.0] * only_variant + [1.0, 0.0]
    variant = [0.0] * only_reference + [1.0] * only_variant + [1.0, 0.0]
    result = mcnemar_test(reference, variant)
    assert (result.only_reference, result.only_variant) == (only_reference, only_variant)
    assert result.p_value == pytest.approx(binomtest(only_reference, only_reference + only_variant).pvalue)


def test_concordant_pairs_give_a_p_value_of_1() -> None:
    assert mcnemar_test([1, 0, 1], [1, 0, 1]).p_value == 1
    assert mcnemar_test([], []).p_value == 1
