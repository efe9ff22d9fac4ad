"""How long-running work says how far it is, so that libraries need not print; and the bars that show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Called with the first and with every later state of a stage; `done` may start above 0 on a resumed run."""

    def __call__(self, stage: str, done: int, total: int, /) -> None: ...


def no_progress(stage: str, done: int, total: int) -> None:
    """Says nothing."""


@contextmanager
def progress_bars(refresh_per_second: float = 10) -> Iterator[Progress]:
    """A bar for each stage on the terminal's error stream, with the time left.

    refresh: times a second that it is drawn; seldom where drawing would slow what is being timed.
    """
    from rich import progress as rich_progress
    from rich.console import Console

    description_column, bar_column, percent_column = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
    )
    time_column = rich_progress.TimeRemainingColumn()
    console = Console(stderr=True)
    display = rich_progress.Progress(
        description_column,
        bar_column,
        percent_column,
        time_column,
        console=console,
        refresh_per_second=refresh_per_second,
    )
    tasks: dict[str, rich_progress.TaskID] = {}

    def report(stage: str, done: int, total: int, /) -> None:
        if stage not in tasks:
            display.start()  # not before: where nothing is begun, an error is the only line
            tasks[stage] = display.add_task(stage, total=total)
        display.update(tasks[stage], completed=done)

    try:
        yield report
    finally:
        if tasks:
            display.stop()
