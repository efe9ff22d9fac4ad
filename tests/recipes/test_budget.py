"""Budgets are read as they are written, and everything else is refused with what to write."""

import pytest

from edgepress.recipes.budget import Budget, parse_budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("4.5bpw", Budget(bits_per_weight=4.5)),
        ("5 bpw", Budget(bits_per_weight=5.0)),
        ("3.6GB", Budget(size=3_600_000_000)),
        ("1GiB", Budget(size=2**30)),
        ("500MB", Budget(size=500_000_000)),
        (" 20 KB ", Budget(size=20_000)),
    ],
)
def test_budgets(text, budget):
    assert parse_budget(text) == budget


@pytest.mark.parametrize(
    "text", ["", "4.5", "GB", "-3GB", "0bpw", "0GB", "4.5 bits", "nanbpw", "1e3MB", "33bpw", "4bpw 3GB"]
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=r"4\.5bpw, or the size of all components such as 3\.6GB"):
        parse_budget(text)
