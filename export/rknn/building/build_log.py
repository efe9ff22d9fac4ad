"""What the toolkit's log of a build says: where each operator runs, how much memory it takes, and what went wrong.

The toolkit returns 0 where an operator found no place on the NPU; only the log tells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LAYER_ROW = re.compile(
    r"RKNN: \[[^\]]*\]\s+\d+\s+(?P<operator>\S+)\s+(?P<dtype>\S+)\s+(?P<target>CPU|GPU|NPU)\s+(?P<rest>.*)$"
)
TABLE_TITLE = "Network Layer Information Table"
IO_OPERATORS = {"InputOperator", "OutputOperator"}  # always on the CPU: they hand arrays over
MEMORY_SIZE = re.compile(r"Total (Internal|Weight) Memory Size: ([\d.]+)\s*([KMG]?)B")
BYTES_PER_UNIT = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
ERROR_LINE = re.compile(r"^E RKNN|^E \S|Unkown op target|REGTASK")
TIMESTAMP = re.compile(r"RKNN: \[[^\]]*\]\s*")


@dataclass(frozen=True)
class BuiltLayer:
    """An operator of the built model: its type, what it computes in, where, and its name, which may be empty."""

    operator: str
    dtype: str
    target: str
    name: str


@dataclass(frozen=True)
class BuildLog:
    """What a build's log says. weights, internal: memory on the device in bytes. faults: lines, without the clock."""

    layers: tuple[BuiltLayer, ...]
    weight_bytes: int
    internal_bytes: int
    errors: tuple[str, ...]

    @property
    def layers_not_on_npu(self) -> tuple[BuiltLayer, ...]:
        """The layers that do not run on the NPU."""
        return tuple(layer for layer in self.layers if layer.target != "NPU")


def parse_build_log(log: str) -> BuildLog:
    """Reads a log; of several tables the last one is of what was built."""
    memory = {kind: int(float(size) * BYTES_PER_UNIT[unit]) for kind, size, unit in MEMORY_SIZE.findall(log)}
    lines = [line.strip() for line in log.splitlines()]
    errors = [TIMESTAMP.sub("", line) for line in lines if ERROR_LINE.search(line)]
    return BuildLog(
        layers=tuple(_parse_layers(log.rpartition(TABLE_TITLE)[2]) if TABLE_TITLE in log else ()),
        weight_bytes=memory.get("Weight", 0),
        internal_bytes=memory.get("Internal", 0),
        errors=tuple(dict.fromkeys(errors)),
    )


def _parse_layers(table: str) -> list[BuiltLayer]:
    rows = [row for line in table.splitlines() if (row := LAYER_ROW.search(line))]
    return [
        BuiltLayer(row["operator"], row["dtype"], row["target"], _parse_layer_name(row["rest"]))
        for row in rows
        if row["operator"] not in IO_OPERATORS
    ]


def _parse_layer_name(rest: str) -> str:
    """The last column, `Operator:name`; empty for what the toolkit put in by itself."""
    last = rest.split()[-1] if rest.split() else ""
    return last.partition(":")[2]
