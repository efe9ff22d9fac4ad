"""How long-running work says how far it is, so that libraries need not print; and the bars that show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Called with the first and with every later state of a stage; `done` may start above 0 on a resumed run."""

    def __call__(self, stage: str, done: int, total: int, /) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """Says nothing."""


@contextmanager
def bars() -> Iterator[Progress]:
    """A bar for each stage on the terminal's error stream, with the time left."""
    from rich import progress as rich_progress
    from rich.console import Console

    text, bar, share = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
    )
    left = rich_progress.TimeRemainingColumn()
    with rich_progress.Progress(text, bar, share, left, console=Console(stderr=True)) as shown:
        tasks: dict[str, rich_progress.TaskID] = {}

        def report(stage: str, done: int, total: int, /) -> None:
            if stage not in tasks:
                tasks[stage] = shown.add_task(stage, total=total)
            shown.update(tasks[stage], completed=done)

        yield report
