"""Measures wall time and peak memory of quantizing the demo, for the whole process.

Run by `make bench-quantize`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import click

from ...common.markdown_table import render_table
from ..common.process import measure_command
from ..common.report import write_section

NUM_RUNS = 3


def measure_run(output: Path) -> tuple[float, float]:
    """Runs `edgepress quantize --recipe orin`; returns its time in seconds and its peak resident set in GB."""
    command = [sys.executable, "-m", "edgepress", "quantize", "--recipe", "orin", "--output", str(output)]
    cost = measure_command(command, output.with_suffix(".log"))
    return cost.seconds, cost.peak_rss / 1e9


@click.command(help=__doc__)
def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = [measure_run(Path(folder) / str(number)) for number in range(NUM_RUNS)]
    rows = [
        [name, *(f"{reduce(values):.2f}" for reduce in (min, statistics.median, max))]
        for name, values in zip(("wall time, s", "peak RSS, GB"), zip(*runs, strict=True), strict=True)
    ]
    body = "\n\n".join(
        [
            "## What quantizing the demo costs",
            f"`edgepress quantize --recipe orin`, the whole process including start-up, {NUM_RUNS} runs.",
            render_table(["", "minimum", "median", "maximum"], rows),
        ]
    )
    write_section("cost", "make bench-quantize", body)
    click.echo(body)


if __name__ == "__main__":
    main()
