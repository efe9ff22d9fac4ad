"""Runs the units of long work, one after another in this process or as tasks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Protocol, TypeVar

from .cluster_address import check_cluster
from .threads import map_threads

T = TypeVar("T")
R = TypeVar("R")

Check = Callable[[], str | None]
"""What runs on another machine and returns what is wrong with it and what to do, to follow its name; None: nothing."""


class Executor(Protocol):
    """What applies a function to the units of work.

    Attributes:
        is_remote: Whether units run in other processes, to which everything that they need is pickled.
    """

    is_remote: bool

    def map(
        self,
        prepare: Callable[[], Callable[[T], R]],
        items: Iterable[T],
        *,
        memory: int = 0,
        cores: int = 1,
        threads: bool = False,
    ) -> Iterator[R]:
        """Yields what a function returns for each item, in the order of the items.

        Args:
            prepare: Loads what all items need, and returns the function. It is called once in each process.
            items: The items.
            memory: Bytes that a process of a cluster takes.
            cores: Cores that it takes.
            threads: Whether several threads of this process may call the function, if there is no cluster.

        Raises:
            UserError: What the function raises; a cluster that cannot be used or is too small.
        """
        ...


class LocalExecutor:
    """Runs units in this process, one after another unless they may run in threads."""

    is_remote = False

    def map(
        self,
        prepare: Callable[[], Callable[[T], R]],
        items: Iterable[T],
        *,
        memory: int = 0,
        cores: int = 1,
        threads: bool = False,
    ) -> Iterator[R]:
        del memory, cores
        function = prepare()
        yield from map_threads(function, items) if threads else map(function, items)


THIS_PROCESS: Executor = LocalExecutor()


@contextmanager
def open_executor(
    address: str | None, make_check: Callable[[], AbstractContextManager[Check]], memory: int | None = None
) -> Iterator[Executor]:
    """Opens what runs units of work. A cluster is connected to when the first units are run.

    Args:
        address: `HOST:PORT` of a Ray cluster that runs, `local` to start one on this machine, which stops at the end,
            or None to run everything in this process.
        make_check: Makes a check of the machines of a cluster, which is run before the first units.
        memory: Bytes that all processes of a local cluster may take together; None: what is free.

    Raises:
        UserError: Ray is not installed, or the address does not answer.
    """
    if address is None:
        yield THIS_PROCESS
        return
    check_cluster(address)
    from .ray_executor import RayExecutor

    with closing(RayExecutor(address, make_check, memory)) as executor:
        yield executor
