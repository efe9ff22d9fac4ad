"""Runs the units of long work, one after another in this process or as tasks of a Ray cluster."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from importlib.util import find_spec
from typing import Protocol, TypeVar

from .errors import UserError, summarize_error
from .threads import map_threads

T = TypeVar("T")
R = TypeVar("R")

LOCAL = "local"  # a cluster of this machine alone, which ends with the command
Check = Callable[[], str | None]
"""What runs on another machine and returns what is wrong with it and what to do, to follow its name; None: nothing."""
ADDRESS_PATTERN = re.compile(r"(?P<host>[\w.-]+|\[[\da-fA-F:.]+\]):(?P<port>\d{1,5})", re.ASCII)
CONNECT_TIMEOUT_S = 5.0


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


def check_cluster(address: str | None) -> None:
    """Checks, before any long work, that a cluster can be used as far as that takes no time.

    Raises:
        UserError: Ray is not installed, or the address is none or does not answer.
    """
    if address is None:
        return
    match = ADDRESS_PATTERN.fullmatch(address)
    if address != LOCAL and (match is None or not 0 < int(match["port"]) < 2**16):
        raise UserError(
            f"--ray {address} is no address of a Ray cluster. Give HOST:PORT, such as 10.0.0.1:6379, or local."
        )
    if find_spec("ray") is None:
        raise UserError("--ray needs the package 'ray', which is not installed. Run: pip install 'edgepress[ray]'")
    if match is None:
        return
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise UserError(
            f"The Ray cluster {address} does not answer ({summarize_error(error)}). Start it, or correct the address."
        ) from error
