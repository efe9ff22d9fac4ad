"""Powers of two that keep float16 from overflowing between the linears of a block.

Dividing a linear's rows by 2^k divides only its scales, which is exact as long as they stay above 6e-5, float16's
smallest normal number; a norm cancels it, or the last linear of the chain multiplies it back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from ...models.base.family import ShiftChain
from ..plan import QuantBlock

FP16_LIMIT = 6e4  # float16 ends at 65504

AbsMaxByModule = Mapping[
    str, float
]  # largest |activation| seen: "component.module" at its output, "component.module:in" before it


def pow2_exponents(block: QuantBlock, peaks: AbsMaxByModule) -> dict[str, int]:
    """For each linear of a block the k by whose power of two its rows are divided; 0 where nothing overflows."""
    found = dict.fromkeys(block.spec.linears, 0)
    for chain in block.spec.chains:
        found |= _chain_exponents(chain, block, peaks)
    return found


def find_fp16_overflows(block: QuantBlock, peaks: AbsMaxByModule) -> list[str]:
    """Activations of a block that pass the limit even then, by name."""
    after = dict(_shifted_abs_max(block, peaks))
    return [name for name, peak in after.items() if peak > FP16_LIMIT]


def cumulative_shifts(block: QuantBlock, own: Mapping[str, int]) -> dict[str, int]:
    """For each linear of a chain the k by whose power of two its outputs are divided, by it and by those before it."""
    found = {}
    for chain in block.spec.chains:
        for number, linear in enumerate(chain.linears):
            found[linear] = sum(own.get(name, 0) for name in chain.linears[: number + 1])
    return found


def _chain_exponents(chain: ShiftChain, unit: QuantBlock, peaks: AbsMaxByModule) -> dict[str, int]:
    """Divides at each linear by what its output and the next one's input still need."""
    found: dict[str, int] = {}
    for number, linear in enumerate(chain.linears):
        peak = max((peaks.get(name, 0.0) for name in _chain_activations(chain, number, unit)), default=0.0)
        peak /= 2.0 ** sum(found.values())
        found[linear] = max(0, math.ceil(math.log2(peak / FP16_LIMIT))) if FP16_LIMIT < peak < math.inf else 0
    if not chain.cancelled_by_norm:
        last = chain.linears[-1]
        found[last] = -sum(k for linear, k in found.items() if linear != last)
    return found


def _chain_activations(chain: ShiftChain, number: int, unit: QuantBlock) -> list[str]:
    """A linear's output and the next one's input; what leaves an uncancelled chain cannot be made smaller."""
    last = number + 1 == len(chain.linears)
    if last and not chain.cancelled_by_norm:
        return []
    names = [f"{unit.name}.{chain.linears[number]}"]
    return names if last else [*names, f"{unit.name}.{chain.linears[number + 1]}:in"]


def _shifted_abs_max(unit: QuantBlock, peaks: AbsMaxByModule) -> Iterator[tuple[str, float]]:
    """Every activation of a block as it is once powers of two are folded."""
    own = pow2_exponents(unit, peaks)
    shift = {}
    for linear, total in cumulative_shifts(unit, own).items():
        shift[f"{unit.name}.{linear}"] = total
        shift[f"{unit.name}.{linear}:in"] = total - own[linear]
    for name, peak in peaks.items():
        if name == unit.name or name.startswith(f"{unit.name}."):
            yield name, peak / 2.0 ** shift.get(name, 0)
