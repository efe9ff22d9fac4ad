"""Lets commands fail at every operation on files: run again, they must end as if nothing had happened.

Run by `make faults`. What is tried is in fault_runner.py. A table says how many of a command's points were tried.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import click

from ...common.markdown_table import render_table
from ..common.report import write_section
from .fault_runner import FaultReport, FaultRunner, prepare_server, try_verb
from .scratch import make_scratch_folder
from .verbs import TRACING, VERBS, is_toolkit_installed, write_source


def _write_inputs(folder: Path, with_traces: bool) -> Path:
    """Writes the pipeline, and beside it the user's cache of traced graphs: tracing takes longest."""
    source, cache = folder / "pipeline", folder / "cache"
    if not source.exists():
        write_source(source)
    if with_traces and not cache.exists():
        with make_scratch_folder("traces-") as scratch:
            runner = FaultRunner(TRACING, source, scratch)
            shutil.copytree(runner.user_cache, cache)
    return source


def _write_table(name: str, count: int, reports: Sequence[tuple[str, FaultReport]]) -> None:
    """Writes the table of a command to docs/reliability.md."""
    rows = [
        [fault, str(report.points), str(report.tried), str(report.tried - len(report.problems))]
        for fault, report in reports
    ]
    table = render_table(["fault", "points", "tried", "passed"], rows)
    command = f"make faults VERB='{name}'" + (f" POINTS={count}" if count else "")
    write_section(f"faults-{name.replace(' ', '-')}", command, f"### `{name}`\n\n{table}")


@click.command(help=__doc__)
@click.option("--points", "count", type=click.IntRange(min=0), default=0, help="Points for each fault. [default: all]")
@click.option("--verb", "names", type=click.Choice(list(VERBS)), multiple=True, help="Only this one.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Commands to try at once.")
@click.option(
    "--inputs",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the pipeline and its traced graphs, which other runs then use.  [default: a temporary one]",
)
def main(count: int, names: tuple[str, ...], jobs: int, inputs: Path | None) -> None:
    prepare_server()
    chosen = [name for name in names or VERBS if not VERBS[name].needs_toolkit or is_toolkit_installed()]
    problems = []
    with make_scratch_folder("faults-") as folder, ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        with_traces = any(VERBS[name].traces_graphs for name in chosen)
        source = _write_inputs((inputs or folder / "inputs").absolute(), with_traces)
        for name in chosen:
            (folder / name).mkdir()
        tasks = {pool.submit(try_verb, name, count, source, folder / name): name for name in chosen}
        for task in as_completed(tasks):
            problems += [problem for _, report in task.result() for problem in report.problems]
            _write_table(tasks[task], count, task.result())
    click.echo("\n".join(problems) or "All passed.")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
