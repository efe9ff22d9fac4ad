"""Size, bits a weight, seconds and memory of the reference and the variants. All reports show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..generation.candidates import REFERENCE
from ..results.schema import GenerationCost, Results, SystemInfo
from ..stats.bootstrap import MeanCI
from .formatting import format_number, format_range

MEGABYTE = 10**6


class CostRow(NamedTuple):
    """The cost of the reference or a variant, as text; empty where nothing is known.

    Attributes:
        name: Name of the variant, or `reference`.
        size: Size of all weights in MB.
        bits: Bits for each weight of the reference.
        seconds: Seconds of an image with the interval.
        memory: Peak memory in MB.
    """

    name: str
    size: str
    bits: str
    seconds: str
    memory: str


def list_costs(results: Results) -> list[GenerationCost | None]:
    """The costs of the reference and the variants."""
    return [results.reference_cost, *results.costs.values()]


def build_cost_rows(results: Results) -> list[CostRow]:
    """The rows of everything of which something is known, the reference first."""
    identity = results.identity
    rows = [
        _build_row(REFERENCE, identity.reference, results.reference_cost),
        *(_build_row(name, system, results.costs.get(name)) for name, system in identity.variants.items()),
    ]
    return [row for row in rows if any(row[1:])]


def describe_costs(costs: Sequence[GenerationCost | None]) -> str:
    """What the numbers mean, in sentences.

    Args:
        costs: The costs of the reference and the variants.
    """
    known = [cost for cost in costs if cost]
    sizes = sorted({cost.batch_size for cost in known})
    batches = f" Images were generated {' or '.join(map(str, sizes))} at a time." if sizes and sizes != [1] else ""
    servers = " That of a server is the memory of its whole process." if any(c.whole_process for c in known) else ""
    return (
        "Size: all weights that are loaded; bits: of that, for each weight of the reference. Seconds of an image "
        f"without loading, on this machine with its load during the run.{batches} Memory: what was added to the "
        f"process at the peak, libraries apart.{servers}"
    )


def format_seconds(seconds: MeanCI) -> str:
    """A time in seconds with its interval."""
    digits = 3 if seconds.mean < 1 else 2 if seconds.mean < 100 else 0
    text = format_number(seconds.mean, digits)
    if seconds.low is None or seconds.high is None:
        return text
    return f"{text} {format_range(format_number(seconds.low, digits), format_number(seconds.high, digits))}"


def format_megabytes(size: int | None) -> str:
    """A size in MB; empty if it is not known."""
    return "" if size is None else f"{size / MEGABYTE:,.{0 if size >= 1000 * MEGABYTE else 1}f}"


def describe_own_noise(results: Results) -> list[tuple[str, str]]:
    """The variants that are not compared with the reference, with the reason."""
    variants = results.identity.variants.items()
    return [(name, system.own_noise) for name, system in variants if system.own_noise]


def _build_row(name: str, system: SystemInfo, cost: GenerationCost | None) -> CostRow:
    return CostRow(
        name=name,
        size=format_megabytes(system.weight_bytes),
        bits="" if system.bits_per_weight is None else format_number(system.bits_per_weight, 2),
        seconds=format_seconds(cost.seconds) if cost else "",
        memory=format_megabytes(cost.peak_memory) if cost else "",
    )
