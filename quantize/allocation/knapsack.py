"""Distributes bytes: one format for each layer, such that the sum of drifts is small and that of bytes fits.

The multiple-choice knapsack problem by its Lagrangian: for a price of a byte, each layer takes the format with the
least drift + price * bytes, and the price is bisected (H. Everett, Generalized Lagrange multiplier method for solving
problems of optimum allocation of resources, Operations Research 11, 1963). What the price leaves over is spent on the
exchanges that bring the most for a byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

BISECTIONS = 100


class FormatCost(NamedTuple):
    """What a format costs a layer.

    Attributes:
        size: Bytes.
        drift: What it adds to the error of the model's output, 0 or more.
    """

    size: int
    drift: float


Options = Mapping[str, FormatCost]


def allocate(layers: Mapping[str, Options], budget: int) -> dict[str, str]:
    """Chooses a format for each layer.

    Args:
        layers: The costs of each layer's formats, by layer and format.
        budget: The bytes of all layers together.

    Returns:
        The format of each layer, by its name.

    Raises:
        ValueError: Even the smallest formats do not fit.
    """
    smallest = {name: min(options, key=lambda option: options[option]) for name, options in layers.items()}
    if _count_size(layers, smallest) > budget:
        raise ValueError(f"the smallest formats take {_count_size(layers, smallest)} bytes, of {budget}")
    choice = _choose(layers, 0.0)
    if _count_size(layers, choice) <= budget:
        return choice
    low, high = 0.0, 1.0
    while _count_size(layers, _choose(layers, high)) > budget:
        low, high = high, high * 2
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if _count_size(layers, _choose(layers, middle)) <= budget else (middle, high)
    return _spend_rest(layers, _choose(layers, high), budget)


def _choose(layers: Mapping[str, Options], price: float) -> dict[str, str]:
    """Returns what each layer takes at a price of a byte: of equally good formats, the smallest."""
    return {
        name: min(options, key=lambda option: (options[option].drift + price * options[option].size, options[option]))
        for name, options in layers.items()
    }


def _spend_rest(layers: Mapping[str, Options], choice: dict[str, str], budget: int) -> dict[str, str]:
    """Exchanges formats for better ones while there is room, those first that bring the most for a byte."""
    choice = dict(choice)
    rest = budget - _count_size(layers, choice)
    while True:
        exchanges = [
            (gain / size, name, option)
            for name, options in layers.items()
            for option, cost in options.items()
            if (size := cost.size - options[choice[name]].size) <= rest
            and size > 0
            and (gain := options[choice[name]].drift - cost.drift) > 0
        ]
        if not exchanges:
            return choice
        _, name, option = max(exchanges)
        rest -= layers[name][option].size - layers[name][choice[name]].size
        choice[name] = option


def _count_size(layers: Mapping[str, Options], choice: Mapping[str, str]) -> int:
    return sum(layers[name][option].size for name, option in choice.items())
