"""Powers of two that keep float16 from overflowing between the linears of a block.

Dividing a linear's rows by 2^k divides only its scales, which is exact as long as they stay above 6e-5, float16's
smallest normal number. A norm cancels the factor, or the last linear of the chain multiplies it back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from ...models.base.family import ShiftChain
from ..plan import QuantBlock

FP16_LIMIT = 6e4  # float16 ends at 65504

# The largest |activation|: "component.module" at its output, "component.module:in" at its input.
AbsMaxByModule = Mapping[str, float]


def pow2_exponents(block: QuantBlock, abs_max: AbsMaxByModule) -> dict[str, int]:
    """Return, for each linear of a block, the k by whose power of two its rows are divided; 0 without overflow."""
    exponents = dict.fromkeys(block.relative_linears, 0)
    for chain in block.spec.chains:
        exponents |= _chain_exponents(chain, block, abs_max)
    return exponents


def find_fp16_overflows(block: QuantBlock, abs_max: AbsMaxByModule) -> list[str]:
    """Returns the names of activations that exceed float16's range even with the powers of two folded."""
    return [name for name, peak in _shifted_abs_max(block, abs_max) if peak > FP16_LIMIT]


def cumulative_shifts(block: QuantBlock, exponents: Mapping[str, int]) -> dict[str, int]:
    """Return, for each linear of a chain, the k by whose power of two its output is divided.

    That is its own exponent and those of the linears before it in the chain.
    """
    shifts = {}
    for chain in block.spec.chains:
        for number, linear in enumerate(chain.linears):
            shifts[linear] = sum(exponents.get(name, 0) for name in chain.linears[: number + 1])
    return shifts


def _chain_exponents(chain: ShiftChain, block: QuantBlock, abs_max: AbsMaxByModule) -> dict[str, int]:
    """Divides at each linear by what its output and the next one's input still need."""
    exponents: dict[str, int] = {}
    for number, linear in enumerate(chain.linears):
        peak = max((abs_max.get(name, 0.0) for name in _chain_activations(chain, number, block)), default=0.0)
        peak /= 2.0 ** sum(exponents.values())
        exponents[linear] = max(0, math.ceil(math.log2(peak / FP16_LIMIT))) if FP16_LIMIT < peak < math.inf else 0
    if not chain.cancelled_by_norm:
        last = chain.linears[-1]
        exponents[last] = -sum(k for linear, k in exponents.items() if linear != last)
    return exponents


def _chain_activations(chain: ShiftChain, number: int, block: QuantBlock) -> list[str]:
    """Names a linear's output and the next one's input. What leaves a chain without a norm cannot be made smaller."""
    last = number + 1 == len(chain.linears)
    if last and not chain.cancelled_by_norm:
        return []
    names = [f"{block.name}.{chain.linears[number]}"]
    return names if last else [*names, f"{block.name}.{chain.linears[number + 1]}:in"]


def _shifted_abs_max(block: QuantBlock, abs_max: AbsMaxByModule) -> Iterator[tuple[str, float]]:
    """Yields every activation of a block and its largest magnitude once the powers of two are folded."""
    exponents = pow2_exponents(block, abs_max)
    shifts = {}
    for linear, total in cumulative_shifts(block, exponents).items():
        shifts[f"{block.name}.{linear}"] = total
        shifts[f"{block.name}.{linear}:in"] = total - exponents[linear]
    for name, peak in abs_max.items():
        if name == block.name or name.startswith(f"{block.name}."):
            yield name, peak / 2.0 ** shifts.get(name, 0)
