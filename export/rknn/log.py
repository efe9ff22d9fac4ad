"""What the toolkit's log of a build says: where each operator runs, how much memory it takes, and what went wrong.

The toolkit returns 0 where an operator found no place on the NPU; only the log tells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

ROW = re.compile(
    r"RKNN: \[[^\]]*\]\s+\d+\s+(?P<operator>\S+)\s+(?P<dtype>\S+)\s+(?P<target>CPU|GPU|NPU)\s+(?P<rest>.*)$"
)
TABLE = "Network Layer Information Table"
ENDS = {"InputOperator", "OutputOperator"}  # always on the CPU: they hand arrays over
MEMORY = re.compile(r"Total (Internal|Weight) Memory Size: ([\d.]+)\s*([KMG]?)B")
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
FAULTS = re.compile(r"^E RKNN|^E \S|Unkown op target|REGTASK")
CLOCK = re.compile(r"RKNN: \[[^\]]*\]\s*")


@dataclass(frozen=True)
class Layer:
    """An operator of the built model: its type, what it computes in, where, and its name, which may be empty."""

    operator: str
    dtype: str
    target: str
    name: str


@dataclass(frozen=True)
class Report:
    """What a build's log says. weights, internal: memory on the device in bytes. faults: lines, without the clock."""

    layers: tuple[Layer, ...]
    weights: int
    internal: int
    faults: tuple[str, ...]

    @property
    def elsewhere(self) -> tuple[Layer, ...]:
        """The layers that do not run on the NPU."""
        return tuple(layer for layer in self.layers if layer.target != "NPU")


def read(log: str) -> Report:
    """Reads a log; of several tables the last one is of what was built."""
    memory = {kind: int(float(size) * UNITS[unit]) for kind, size, unit in MEMORY.findall(log)}
    lines = [line.strip() for line in log.splitlines()]
    faults = [CLOCK.sub("", line) for line in lines if FAULTS.search(line)]
    return Report(
        layers=tuple(_layers(log.rpartition(TABLE)[2]) if TABLE in log else ()),
        weights=memory.get("Weight", 0),
        internal=memory.get("Internal", 0),
        faults=tuple(dict.fromkeys(faults)),
    )


def _layers(table: str) -> list[Layer]:
    rows = [row for line in table.splitlines() if (row := ROW.search(line))]
    return [
        Layer(row["operator"], row["dtype"], row["target"], _name(row["rest"]))
        for row in rows
        if row["operator"] not in ENDS
    ]


def _name(rest: str) -> str:
    """The last column, `Operator:name`; empty for what the toolkit put in by itself."""
    last = rest.split()[-1] if rest.split() else ""
    return last.partition(":")[2]
