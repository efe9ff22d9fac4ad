"""Progress of long work: the callback that reports it, and progress bars that show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """A callback that receives the progress of long work. Any function with these three parameters is one.

    Work consists of stages, one after another or interleaved. For each stage, the first call announces it and each
    later call updates it, until `done` equals `total`.

    Example:
        def print_progress(stage: str, done: int, total: int) -> None:
            print(f"{stage}: {done}/{total}")

        edgepress.quantize("pi5", progress=print_progress)
    """

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """Receives the state of a stage.

        Args:
            stage: The name of the stage, such as `calibrating`.
            done: How much of it is done; the first value is above 0 if earlier work is resumed.
            total: How much there is to do, in the same unit: blocks, images, steps or bytes.
        """


def no_progress(stage: str, done: int, total: int) -> None:
    """Ignores progress."""


@contextmanager
def progress_bars(refresh_per_second: float = 10) -> Iterator[Progress]:
    """Shows a progress bar for each stage on the terminal's error stream.

    Args:
        refresh_per_second: How often the bars are drawn. Draw them seldom if drawing would disturb measurements.

    Yields:
        The callback that updates the bars.
    """
    from rich import progress
    from rich.console import Console

    display = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=refresh_per_second,
    )
    tasks: dict[str, progress.TaskID] = {}

    def report(stage: str, done: int, total: int, /) -> None:
        if stage not in tasks:
            display.start()  # not earlier: if no stage begins, an error is the only output
            tasks[stage] = display.add_task(stage, total=total)
        display.update(tasks[stage], completed=done, total=total)

    try:
        yield report
    finally:
        if tasks:
            display.stop()
