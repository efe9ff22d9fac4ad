"""Reads damaged files: each must end in success or in a sentence, soon and in little memory.

Run by `make fuzz`. Cases are made by Hypothesis from valid files of the project; a failing one is made as small as it
can be, and printed.
"""

from __future__ import annotations

import logging
import resource
import signal
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import FrameType

import click
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from ...common.errors import UserError
from ...common.markdown_table import render_table
from ..common.report import write_section
from .mutations import damaged
from .readers import READERS, Reader
from .scratch import make_scratch_folder

MAX_SECONDS, MAX_BYTES = 2.0, 300 * 2**20  # of one case: processor time, and memory above what the process has
STATM, DATA_FIELD = Path("/proc/self/statm"), 5


class TooSlowError(BaseException):
    """A case took longer than it may. No reader catches it."""


@dataclass
class FuzzReport:
    """What became of the cases of a reader.

    Attributes:
        cases: Number of cases.
        read: How many were read in spite of the damage.
        refused: How many ended in a UserError.
        max_seconds: Processor time of the slowest.
    """

    cases: int = 0
    read: int = 0
    refused: int = 0
    max_seconds: float = 0.0


def fuzz_reader(reader: Reader, cases: int, random_seed: int) -> FuzzReport:
    """Lets a reader read damaged files.

    Args:
        reader: The reader.
        cases: Number of cases.
        random_seed: Equal seeds give equal cases.

    Raises:
        BaseException: What the reader raised that is no UserError, with the smallest case that does in its notes.
    """
    report = FuzzReport()
    files = reader.make_files()
    case = st.one_of(
        [st.tuples(st.just(path), damaged(files[path], file_format)) for path, file_format in reader.targets]
    )

    with make_scratch_folder("fuzz-") as folder:
        for path, content in files.items():
            _write(folder / path, content)

        @seed(random_seed)
        @settings(
            max_examples=cases,
            derandomize=False,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        @given(case)
        def read(damaged_file: tuple[str, bytes]) -> None:
            path, content = damaged_file
            _write(folder / path, content)
            try:
                _read_within_limits(reader, folder, folder / path, report)
            finally:
                _write(folder / path, files[path])

        read()
    return report


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def _read_within_limits(reader: Reader, folder: Path, file: Path, report: FuzzReport) -> None:
    report.cases += 1
    started = time.process_time()
    try:
        with _limits(), warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # numpy's, where a number overflows
            reader.read(folder, file)
        report.read += 1
    except UserError as error:
        report.refused += 1
        message = str(error)
        assert message.strip(), "an empty message"
        assert "\n" not in message, f"not one line: {message!r}"
    report.max_seconds = max(report.max_seconds, time.process_time() - started)


@contextmanager
def _limits() -> Iterator[None]:
    """Ends what takes too long, and lets no more memory be allocated than a case may have."""
    used = int(STATM.read_text("ascii").split()[DATA_FIELD]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    previous = signal.signal(signal.SIGPROF, _raise_too_slow)
    signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
    resource.setrlimit(resource.RLIMIT_DATA, (used + MAX_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def _raise_too_slow(_: int, __: FrameType | None) -> None:
    raise TooSlowError(f"more than {MAX_SECONDS:g} s")


def _fuzz_quietly(name: str, cases: int, random_seed: int) -> FuzzReport:
    logging.getLogger("edgepress").setLevel(logging.CRITICAL)  # readers say what they take
    return fuzz_reader(READERS[name], cases, random_seed)


@click.command(help=__doc__)
@click.option("--cases", type=click.IntRange(min=1), default=10_000, show_default=True, help="Cases for each reader.")
@click.option("--seed", "random_seed", type=int, default=0, show_default=True, help="Other seeds, other cases.")
@click.option("--reader", "names", type=click.Choice(list(READERS)), multiple=True, help="Only this one.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Readers to try at once.")
@click.option("--print", "print_only", is_flag=True, help="Do not write to docs/reliability.md.")
def main(cases: int, random_seed: int, names: tuple[str, ...], jobs: int, print_only: bool) -> None:
    rows = []
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        tasks = {name: pool.submit(_fuzz_quietly, name, cases, random_seed) for name in names or READERS}
        for name, task in tasks.items():
            report = task.result()
            counts = (f"{count:,}" for count in (report.cases, report.read, report.refused))
            rows.append([name, *counts, f"{1000 * report.max_seconds:.0f} ms"])
            click.echo(" ".join(rows[-1]), err=True)
    body = "\n\n".join(
        [
            "## Damaged files",
            f"Files that differ from valid ones, {cases:,} for each reader. No case ended in anything but success or a "
            f"sentence, within {MAX_SECONDS:g} seconds of processor time and {MAX_BYTES // 2**20} MB. Files that are "
            "read in spite of the damage still fit their schema.",
            render_table(["reader", "cases", "read", "refused", "slowest"], rows),
        ]
    )
    if not (print_only or names):
        write_section("reliability-fuzz", f"make fuzz CASES={cases} SEED={random_seed}", body)
    click.echo(body)


if __name__ == "__main__":
    main()
