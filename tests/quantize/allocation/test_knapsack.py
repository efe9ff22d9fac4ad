"""Bytes are distributed as brute force does, or nearly so, and never more than there are."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from edgepress.quantize.allocation.knapsack import FormatCost, allocate


def layers_of(*rows):
    return {
        f"layer {number}": {f"format {index}": FormatCost(*cost) for index, cost in enumerate(row)}
        for number, row in enumerate(rows)
    }


def totals(layers, choice):
    costs = [layers[name][option] for name, option in choice.items()]
    return sum(cost.size for cost in costs), sum(cost.drift for cost in costs)


def solve_by_brute_force(layers, budget):
    choices = [dict(zip(layers, options, strict=True)) for options in product(*layers.values())]
    return min(drift for size, drift in (totals(layers, choice) for choice in choices) if size <= budget)


def relax(layers, budget):
    """The least drift if layers could be split between formats: linear programming, which bounds the best choice."""
    names = [(name, option) for name, options in layers.items() for option in options]
    drift = [layers[name][option].drift for name, option in names]
    size = [[layers[name][option].size for name, option in names]]
    ones = [[float(name == layer) for name, _ in names] for layer in layers]
    return linprog(drift, A_ub=size, b_ub=[budget], A_eq=ones, b_eq=[1.0] * len(layers)).fun


costs = st.lists(st.tuples(st.integers(1, 50), st.floats(0, 100)), min_size=1, max_size=4)


@settings(deadline=None)
@given(st.lists(costs, min_size=1, max_size=4), st.integers(1, 200))
def test_never_more_than_the_budget_and_never_worse_than_one_exchange_from_the_best(rows, budget):
    layers = layers_of(*rows)
    smallest = sum(min(size for size, _ in row) for row in rows)
    if smallest > budget:
        with pytest.raises(ValueError, match=str(smallest)):
            allocate(layers, budget)
        return
    size, drift = totals(layers, allocate(layers, budget))
    assert size <= budget
    # Of the relaxed problem's solution, at most one layer is split (Dantzig); the price decides all others.
    widest = max(max(drift for _, drift in row) - min(drift for _, drift in row) for row in rows)
    assert relax(layers, budget) - 1e-6 <= drift <= relax(layers, budget) + widest + 1e-6
    assert drift >= solve_by_brute_force(layers, budget) - 1e-9


def test_bytes_go_where_they_bring_the_most():
    layers = layers_of([(4, 10.0), (8, 1.0)], [(4, 3.0), (8, 2.0)])
    assert allocate(layers, 12) == {"layer 0": "format 1", "layer 1": "format 0"}
    assert allocate(layers, 16) == {"layer 0": "format 1", "layer 1": "format 1"}
    assert allocate(layers, 8) == {"layer 0": "format 0", "layer 1": "format 0"}


def test_what_is_left_is_spent():
    """At no price does the second layer take its middle format, which lies above the line between the others."""
    layers = layers_of([(1, 0.0)], [(2, 10.0), (5, 6.0), (6, 0.0)])
    assert allocate(layers, 6) == {"layer 0": "format 0", "layer 1": "format 1"}


def test_a_larger_format_without_gain_is_not_taken():
    assert allocate(layers_of([(4, 1.0), (8, 1.0)]), 100) == {"layer 0": "format 0"}
