"""Powers of two on hand-made peaks: what overflows is divided, and no more than needed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepress.models.base.family import Block, Fold, ShiftChain
from edgepress.quantize.algorithms.fp16_range import FP16_LIMIT, find_fp16_overflows, pow2_exponents
from edgepress.quantize.plan import QuantBlock

FOLDS = (Fold("norm", ("q", "v", "up"), "norm"), Fold("v", ("o",), "rows"), Fold("up", ("down",), "rows"))
CANCELLED = (ShiftChain(("q",)), ShiftChain(("v", "o")))
MULTIPLIED_BACK = (ShiftChain(("up", "down"), cancelled_by_norm=False),)
UNIT = QuantBlock("model", "layers.0", Block("layers.*", FOLDS, CANCELLED + MULTIPLIED_BACK))
PEAKS = st.floats(0, 1e9)


def peaks_of(**peaks: float) -> dict[str, float]:
    """Peaks by their full names; `o_in` is what the linear o reads."""
    return {f"model.layers.0.{name.replace('_in', ':in')}": peak for name, peak in peaks.items()}


def divided(**peaks: float) -> dict[str, int]:
    """The exponents that are not 0."""
    return {linear: k for linear, k in pow2_exponents(UNIT, peaks_of(**peaks)).items() if k}


def test_every_linear_has_an_exponent_and_nothing_is_divided_without_need() -> None:
    assert pow2_exponents(UNIT, {}) == dict.fromkeys(("q", "v", "up", "o", "down"), 0)
    assert (
        divided(
            q=FP16_LIMIT,
            v=FP16_LIMIT,
            o_in=FP16_LIMIT,
            o=FP16_LIMIT,
            up=FP16_LIMIT,
            down_in=FP16_LIMIT,
            down=FP16_LIMIT,
        )
        == {}
    )


@pytest.mark.parametrize(
    ("peak", "k"), [(FP16_LIMIT * 1.01, 1), (2 * FP16_LIMIT, 1), (2 * FP16_LIMIT + 1, 2), (1e6, 5), (1e9, 15)]
)
def test_a_linear_before_a_norm_is_divided_until_its_output_fits(peak: float, k: int) -> None:
    assert divided(q=peak) == {"q": k}


def test_in_a_chain_the_first_linear_is_divided_by_its_own_need_and_the_next_by_what_is_left() -> None:
    assert divided(v=4 * FP16_LIMIT) == {"v": 2}
    assert divided(v=4 * FP16_LIMIT, o=4 * FP16_LIMIT) == {"v": 2}
    assert divided(v=4 * FP16_LIMIT, o=32 * FP16_LIMIT) == {"v": 2, "o": 3}
    assert divided(o=8 * FP16_LIMIT) == {"o": 3}


def test_what_the_next_linear_reads_counts_as_well() -> None:
    """As of a gated product: neither factor overflows, but what they make does."""
    assert divided(v=10.0, o_in=16 * FP16_LIMIT) == {"v": 4}
    assert divided(up=10.0, down_in=16 * FP16_LIMIT) == {"up": 4, "down": -4}


def test_a_chain_that_no_norm_follows_multiplies_back_at_its_end() -> None:
    assert divided(up=4 * FP16_LIMIT, down_in=2 * FP16_LIMIT) == {"up": 2, "down": -2}


def test_what_leaves_a_chain_that_no_norm_follows_cannot_be_made_smaller() -> None:
    peaks = peaks_of(down=4 * FP16_LIMIT)
    assert not any(pow2_exponents(UNIT, peaks).values())
    assert find_fp16_overflows(UNIT, peaks) == ["model.layers.0.down"]


def test_remaining_overflows_are_reported_and_fixed_ones_are_not() -> None:
    peaks = peaks_of(
        q=9 * FP16_LIMIT,
        v=3 * FP16_LIMIT,
        o_in=5 * FP16_LIMIT,
        o=40 * FP16_LIMIT,
        up=2 * FP16_LIMIT,
        down_in=7 * FP16_LIMIT,
    )
    assert find_fp16_overflows(UNIT, peaks) == []
    # What a linear at a chain's start reads, other modules of the block, and the block's own output stay as they are.
    beyond = peaks_of(q_in=2 * FP16_LIMIT, norm=3 * FP16_LIMIT) | {"model.layers.0": 2 * FP16_LIMIT}
    assert sorted(find_fp16_overflows(UNIT, peaks | beyond)) == sorted(beyond)


def test_other_blocks_are_not_looked_at() -> None:
    peaks = {"model.layers.00.q": 1e9, "model.layers.01": 1e9, "other.layers.0.q": 1e9, "model.layers.0q": 1e9}
    assert find_fp16_overflows(UNIT, peaks) == []
    assert not any(pow2_exponents(UNIT, peaks).values())


@given(PEAKS, PEAKS, PEAKS, PEAKS, PEAKS, PEAKS, PEAKS)
def test_nothing_on_a_chain_overflows_and_no_smaller_powers_would_do(
    q: float, v: float, o_in: float, o: float, up: float, down_in: float, down: float
) -> None:
    peaks = peaks_of(q=q, v=v, o_in=o_in, o=o, up=up, down_in=down_in, down=down)
    k = pow2_exponents(UNIT, peaks)
    after = {
        "q": q / 2 ** k["q"],
        "v": max(v, o_in) / 2 ** k["v"],
        "o": o / 2 ** (k["v"] + k["o"]),
        "up": max(up, down_in) / 2 ** k["up"],
    }
    assert max(after.values()) <= FP16_LIMIT
    assert all(after[linear] > FP16_LIMIT / 2 for linear in after if k[linear] > 0)
    assert min(k[linear] for linear in after) >= 0
    assert k["down"] == -k["up"]
    assert find_fp16_overflows(UNIT, peaks) == (["model.layers.0.down"] if down > FP16_LIMIT else [])
