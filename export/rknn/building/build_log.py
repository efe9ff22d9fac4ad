"""Parses the log of a build: where each operator runs, how much memory it takes, and which errors occurred.

The toolkit returns 0 even if an operator does not run on the NPU. Only the log says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LAYER_ROW = re.compile(
    r"RKNN: \[[^\]]*\]\s+\d+\s+(?P<operator>\S+)\s+(?P<dtype>\S+)\s+(?P<target>CPU|GPU|NPU)\s+(?P<rest>.*)$"
)
TABLE_TITLE = "Network Layer Information Table"
IO_OPERATORS = {"InputOperator", "OutputOperator"}  # always on the CPU: they only pass arrays
MEMORY_SIZE = re.compile(r"Total (Internal|Weight) Memory Size: ([\d.]+)\s*([KMG]?)B")
BYTES_PER_UNIT = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
ERROR_LINE = re.compile(r"^E RKNN|^E \S|Unkown op target|REGTASK")  # "Unkown" is the toolkit's spelling
TIMESTAMP = re.compile(r"RKNN: \[[^\]]*\]\s*")


@dataclass(frozen=True)
class BuiltLayer:
    """An operator of a built model.

    Attributes:
        operator: Its type.
        dtype: The dtype it computes in, such as "FLOAT16".
        target: The processor it runs on: "NPU", "CPU" or "GPU".
        name: Its name; empty for an operator that the toolkit inserted.
    """

    operator: str
    dtype: str
    target: str
    name: str


@dataclass(frozen=True)
class BuildLog:
    """The content of a build's log.

    Attributes:
        layers: All operators but inputs and outputs.
        weight_bytes: Memory of the weights on the device.
        internal_bytes: Memory of the activations on the device.
        errors: Lines that report an error, without timestamps, each once.
    """

    layers: tuple[BuiltLayer, ...]
    weight_bytes: int
    internal_bytes: int
    errors: tuple[str, ...]

    @property
    def layers_not_on_npu(self) -> tuple[BuiltLayer, ...]:
        """The layers that do not run on the NPU."""
        return tuple(layer for layer in self.layers if layer.target != "NPU")


def parse_build_log(log: str) -> BuildLog:
    """Parses a log. If it has several tables of layers, the last one describes the built model."""
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
    """Returns the name in the last column, `Operator:name`; empty for an operator that the toolkit inserted."""
    last = rest.split()[-1] if rest.split() else ""
    return last.partition(":")[2]
