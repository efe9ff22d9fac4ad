"""How long work tells of itself, so that the command line can draw bars and tests can listen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """A subscriber to phases of work."""

    def phase(self, name: str, total: int, done: int = 0) -> AbstractContextManager[Callable[[int], None]]:
        """Opens a phase of `total` steps, `done` of them behind us; the value it gives advances by some steps."""
        ...


class Silent:
    """Progress that nobody watches."""

    @contextmanager
    def phase(self, name: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        yield lambda steps: None


class Bars:
    """Progress bars in the terminal, with the time left."""

    @contextmanager
    def phase(self, name: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) as bars:
            task = bars.add_task(name, total=total, completed=done)
            yield lambda steps: bars.advance(task, steps)
