"""What quantizing the demo costs: wall time and peak memory of the whole process, seen from outside.

`make bench-quantize`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import click

from ..common.process import measure_command
from ..common.report import render_table, write_section

RUNS = 3


def measure_quantize(output: Path) -> tuple[float, float]:
    """Seconds and the peak resident set in GB of one `edgepress quantize --recipe orin`."""
    command = [sys.executable, "-m", "edgepress", "quantize", "--recipe", "orin", "--output", str(output)]
    cost = measure_command(command, output.with_suffix(".log"))
    return cost.seconds, cost.peak_rss / 1e9


@click.command(help=__doc__)
def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = [measure_quantize(Path(folder) / str(number)) for number in range(RUNS)]
    rows = [
        [name, *(f"{pick(values):.2f}" for pick in (min, statistics.median, max))]
        for name, values in zip(("wall time, s", "peak RSS, GB"), zip(*runs, strict=True), strict=True)
    ]
    body = "\n\n".join(
        [
            "## What quantizing the demo costs",
            f"`edgepress quantize --recipe orin`, whole process with start-up, {RUNS} runs.",
            render_table(["", "least", "median", "most"], rows),
        ]
    )
    write_section("cost", "make bench-quantize", body)
    click.echo(body)


if __name__ == "__main__":
    main()
