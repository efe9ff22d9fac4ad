"""Which variant of a model is written."""

from __future__ import annotations

import pytest

from edgepress.quantize.confirmation import choose_variant


@pytest.mark.parametrize(
    ("drift", "variant"),
    [
        ((-28.0, -28.0, -28.0, -28.0), "gptq"),
        ((-28.5, -28.45, -28.41, -28.0), "unscaled"),
        ((-28.5, -28.6, -28.41, -28.0), "unclipped"),
        ((-29.0, -28.6, -28.41, -28.0), "validated"),
        ((-27.0, -27.5, -27.9, -28.0), "gptq"),
        ((-28.05, float("inf"), float("inf"), float("inf")), "validated"),
    ],
)
def test_a_variant_is_taken_over_simpler_ones_only_for_a_clear_gain(drift: tuple[float, ...], variant: str) -> None:
    names = ("validated", "unclipped", "unscaled", "gptq")
    assert choose_variant(dict(zip(names, drift, strict=True))) == variant
