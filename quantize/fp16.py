"""Powers of two that keep float16 from overflowing between the linears of a block.

Dividing a linear's rows by 2^k divides only its scales, which is exact as long as they stay above 6e-5, float16's
smallest normal number; a norm cancels it, or the last linear of the chain multiplies it back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from ..models import Chain
from .plan import Unit

LIMIT = 6e4  # float16 ends at 65504

Peaks = Mapping[
    str, float
]  # largest |activation| seen: "component.module" at its output, "component.module:in" before it


def exponents(unit: Unit, peaks: Peaks) -> dict[str, int]:
    """For each linear of a block the k by whose power of two its rows are divided; 0 where nothing overflows."""
    found = dict.fromkeys(unit.block.linears, 0)
    for chain in unit.block.chains:
        found |= _along(chain, unit, peaks)
    return found


def overflowing(unit: Unit, peaks: Peaks) -> list[str]:
    """Activations of a block that pass the limit even then, by name."""
    after = dict(_after(unit, peaks))
    return [name for name, peak in after.items() if peak > LIMIT]


def outputs_divided(unit: Unit, own: Mapping[str, int]) -> dict[str, int]:
    """For each linear of a chain the k by whose power of two its outputs are divided, by it and by those before it."""
    found = {}
    for chain in unit.block.chains:
        for number, linear in enumerate(chain.linears):
            found[linear] = sum(own.get(name, 0) for name in chain.linears[: number + 1])
    return found


def _along(chain: Chain, unit: Unit, peaks: Peaks) -> dict[str, int]:
    """Divides at each linear by what its output and the next one's input still need."""
    found: dict[str, int] = {}
    for number, linear in enumerate(chain.linears):
        peak = max((peaks.get(name, 0.0) for name in _touched(chain, number, unit)), default=0.0)
        peak /= 2.0 ** sum(found.values())
        found[linear] = max(0, math.ceil(math.log2(peak / LIMIT))) if LIMIT < peak < math.inf else 0
    if not chain.cancelled:
        last = chain.linears[-1]
        found[last] = -sum(k for linear, k in found.items() if linear != last)
    return found


def _touched(chain: Chain, number: int, unit: Unit) -> list[str]:
    """A linear's output and the next one's input; what leaves an uncancelled chain cannot be made smaller."""
    last = number + 1 == len(chain.linears)
    if last and not chain.cancelled:
        return []
    names = [f"{unit.name}.{chain.linears[number]}"]
    return names if last else [*names, f"{unit.name}.{chain.linears[number + 1]}:in"]


def _after(unit: Unit, peaks: Peaks) -> Iterator[tuple[str, float]]:
    """Every activation of a block as it is once powers of two are folded."""
    own = exponents(unit, peaks)
    shift = {}
    for linear, total in outputs_divided(unit, own).items():
        shift[f"{unit.name}.{linear}"] = total
        shift[f"{unit.name}.{linear}:in"] = total - own[linear]
    for name, peak in peaks.items():
        if name == unit.name or name.startswith(f"{unit.name}."):
            yield name, peak / 2.0 ** shift.get(name, 0)
