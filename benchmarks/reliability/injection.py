"""Lets the n-th operation of a process on files fail, or ends the process there.

Operations are seen by Python's audit events, which are raised before each; `os.fsync` has none and is wrapped. What
native libraries write between two operations fails through the limit on the size of files, as on a full disk.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILL, WRITE, CHILD = "kill", "write", "child"
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES}
FAULTS = (*ERRORS, WRITE, KILL)
HIT = "hit"
WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# Operations on one path, with the position of the descriptor of its folder among the event's arguments.
PATH_EVENTS = {
    "os.remove": 1,
    "os.rmdir": 1,
    "os.mkdir": 2,
    "os.chmod": 2,
    "os.truncate": None,
    "sqlite3.connect": None,
}
PROCESS_EVENTS = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty")


@dataclass(frozen=True)
class Injection:
    """A fault in a process. Calling it installs it, for the rest of the process's life.

    Attributes:
        root: Operations on files outside of this folder do not count.
        log: File outside of `root` that gets a line for each operation, and `hit` after the one that failed.
        number: The operation that fails, from 0; None: none does, they are counted.
        fault: One of FAULTS, or CHILD. `write`: the operation succeeds, but no file can grow until the next one.
            `child`: it succeeds, but the processes that this one has started are killed; without any, nothing fails.
    """

    root: Path
    log: Path
    number: int | None = None
    fault: str = KILL

    def __call__(self) -> None:
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        count = 0
        is_active = False

        def pass_point(name: str) -> None:
            nonlocal count, is_active
            if is_active:
                _limit_file_size(None)
                is_active = False
            os.write(log, f"{name}\n".encode())
            count += 1
            if count - 1 != self.number:
                return
            if self.fault == CHILD and not _kill_children():
                return
            os.write(log, f"{HIT}\n".encode())
            if self.fault == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.fault == WRITE:
                is_active = True
                _limit_file_size(0)
            elif self.fault in ERRORS:
                code = ERRORS[self.fault]
                raise OSError(code, os.strerror(code))

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            if event in PROCESS_EVENTS or any(_is_within(self.root, path) for path in _changed_paths(event, arguments)):
                pass_point(event)

        os.fsync = _announce(os.fsync, lambda: pass_point("os.fsync"))  # type: ignore[assignment]
        sys.addaudithook(watch)


def read_log(log: Path) -> tuple[int, bool]:
    """Returns how many operations there were, and whether one of them failed."""
    lines = log.read_text("utf-8").splitlines()
    return len(lines) - lines.count(HIT), HIT in lines


def _announce(function: Callable[[Any], None], before: Callable[[], None]) -> Callable[[Any], None]:
    def announce(argument: Any) -> None:
        before()
        function(argument)

    return announce


def _limit_file_size(size: int | None) -> None:
    """Sets the largest size of files. Python ignores the signal, so that writing more raises EFBIG."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))


def _kill_children() -> bool:
    """Kills the processes that this one has started, if there are any."""
    tasks = Path("/proc/self/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text("ascii").split()]
    for child in children:
        os.kill(child, signal.SIGKILL)
    return bool(children)


def _changed_paths(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """The paths that an operation changes; none if it is another kind of event."""
    if event == "open":
        path, mode, flags = arguments
        writes = set(mode) & set("wax+") if isinstance(mode, str) else (flags or 0) & WRITING_FLAGS
        return [_resolve(path)] if writes and not isinstance(path, int) else []
    if event in ("os.rename", "os.link", "os.symlink"):
        return [_resolve(arguments[1])]
    if event in PATH_EVENTS:
        position = PATH_EVENTS[event]
        return [_resolve(arguments[0], -1 if position is None else arguments[position])]
    return []


def _resolve(path: Any, folder: int = -1) -> str:
    name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
    parent = Path(f"/proc/self/fd/{folder}").readlink() if folder >= 0 else Path.cwd()
    return os.path.normpath(parent / name)  # unlike resolve(), it follows no links


def _is_within(root: Path, path: str) -> bool:
    return path.startswith(f"{root}{os.sep}")
