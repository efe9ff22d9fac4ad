"""Which candidates fit into the memory of which device, by the shipped recipes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...recipes.loader import load_recipe, recipe_names
from .schema import CandidateEntry, DeviceBudget

GIB = 2**30


def list_budgets(
    entries: Sequence[CandidateEntry], choose: Callable[[Sequence[str]], str | None]
) -> tuple[DeviceBudget, ...]:
    """The verdicts for every version of every device whose recipe states its memory, the smallest first.

    Args:
        entries: The candidates.
        choose: Returns which of some candidates to use.
    """
    budgets = []
    for name in recipe_names():
        hardware = load_recipe(name).hardware
        for memory in hardware.memory if hardware else ():
            assert hardware is not None
            usable, process = int((memory - hardware.reserved) * GIB), int(hardware.process * GIB)
            fits = {entry.name: _fits(entry, usable, process) for entry in entries}
            fitting = [entry for entry, is_fitting in fits.items() if is_fitting]
            budgets.append(
                DeviceBudget(
                    device=name,
                    memory=memory,
                    usable_bytes=usable,
                    process_bytes=process,
                    fits=fits,
                    choice=choose(fitting),
                )
            )
    return tuple(sorted(budgets, key=lambda budget: (budget.usable_bytes, budget.device)))


def _fits(entry: CandidateEntry, usable: int, process: int) -> bool | None:
    """Whether a candidate fits; None if its memory is not known."""
    if entry.cost is None or entry.cost.peak_memory is None:
        return None
    return entry.cost.peak_memory + (0 if entry.cost.whole_process else process) <= usable
