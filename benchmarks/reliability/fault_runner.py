"""Runs a command again and again, each time with a fault at another operation, and compares what is left.

A command that replaces an older result fails once at one point: an operation on a file, or a process that it starts.
Then the older result or the new one must be whole, and the same command must end in the same files with the same
content, with nothing beside them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import click

from ...cli.failures import USER_ERROR_EXIT_CODE
from .file_trees import describe_difference, hash_bytes, hash_tree
from .injection import KILL, Injection, read_log
from .verbs import SOURCE, VERBS, Verb, publish, write_recipes

_SERVER = get_context("forkserver")
PRELOADED = f"{__package__}.preload"
PIPE_BYTES = 65_536
TIMEOUT_S = 600  # of a command that takes seconds
INTERRUPTED_AT = 30  # the operation at which a command is killed that leaves unfinished work


@dataclass
class FaultReport:
    """What became of a command with one kind of fault.

    Attributes:
        points: Number of operations that could fail.
        tried: How many did.
        problems: What was wrong afterwards.
    """

    points: int
    tried: int = 0
    problems: list[str] = field(default_factory=list)


class FaultRunner:
    """Runs a command again and again, each time in the same folder with the same content.

    Args:
        verb: The command.
        source: The pipeline.
        folder: An empty folder to work in.
        cache: The user's cache at the beginning; it is empty without one.

    Raises:
        ClickException: The command fails even if nothing disturbs it.
    """

    def __init__(self, verb: Verb, source: Path, folder: Path, cache: Path | None = None) -> None:
        self._verb, self._source = verb, source
        self._root, self._template, self._log = folder / "run", folder / "template", folder / "log"
        self._outcomes: dict[str, str | None] = {}  # of running the command again, by what was there before
        for name in ("", "home", "cache", "state", "tmp"):
            (self._root / name).mkdir()
        if cache is not None and cache.exists():
            shutil.copytree(cache, self._root / "cache", dirs_exist_ok=True)
        write_recipes(self._root)
        for arguments in verb.prepare:
            self._run_undisturbed(arguments)
        if verb.interrupted:
            self._run(verb.interrupted, Injection(self._root, self._log, INTERRUPTED_AT, KILL))
        shutil.copytree(self._root, self._template, symlinks=True)
        self._older = [self._hash_result(result) for result in verb.results]
        self._run_undisturbed(verb.arguments)
        self.points, _ = read_log(self._log)
        self._newer = [self._hash_result(result) for result in verb.results]
        self._expected = hash_tree(self._root)

    @property
    def user_cache(self) -> Path:
        """The user's cache."""
        return self._root / "cache"

    def try_fault(self, fault: str, points: Sequence[int]) -> FaultReport:
        """Lets the command fail at some points, and says what was wrong after each."""
        report = FaultReport(self.points)
        for point in points:
            shutil.rmtree(self._root)
            shutil.copytree(self._template, self._root, symlinks=True)
            code, message = self._run(self._verb.arguments, Injection(self._root, self._log, point, fault))
            is_hit = read_log(self._log)[1]
            if not is_hit and not code:  # the order of threads differs: there were fewer operations this time
                continue
            report.tried += 1
            problem = self._find_problem(fault, code, message) if is_hit else f"fails by itself: {message.strip()}"
            if problem:
                report.problems.append(f"{self._verb.name}, {fault} at operation {point}: {problem}")
                click.echo(report.problems[-1], err=True)
        return report

    def _find_problem(self, fault: str, code: int, message: str) -> str | None:
        if fault != KILL:  # after which an older result may be in its backup, until the command is run again
            if code not in (0, USER_ERROR_EXIT_CODE):
                return f"ends with exit code {code}: {message.strip()}"
            if code and "Error: " not in message:
                return f"does not say what is wrong: {message.strip()}"
            for name, older, newer in zip(self._verb.results, self._older, self._newer, strict=True):
                if self._hash_result(name) not in (older, newer):
                    return f"{name} is neither the older result nor the new one"
        state = hash_bytes(self._root)
        if state not in self._outcomes:
            self._outcomes[state] = self._run_again()
        return self._outcomes[state]

    def _run_again(self) -> str | None:
        code, message = self._run(self._verb.arguments, Injection(self._root, self._log))
        if code:
            return f"run again, it ends with exit code {code}: {message.strip()}"
        return describe_difference(self._expected, hash_tree(self._root))

    def _run_undisturbed(self, arguments: Sequence[str]) -> None:
        code, message = self._run(arguments, Injection(self._root, self._log))
        if code:
            raise click.ClickException(f"edgepress {' '.join(arguments)} ends with exit code {code}: {message}")

    def _run(self, arguments: Sequence[str], injection: Injection) -> tuple[int, str]:
        resolved = [str(self._source) if word == SOURCE else word for word in arguments]
        pipe = self._root.with_name("messages")  # not a file, whose size the fault may limit
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            process = _SERVER.Process(target=_run_command, args=(resolved, self._root, pipe, injection))
            process.start()
            process.join(TIMEOUT_S)
            process.kill()  # if it hangs
            process.join()
            with suppress(BlockingIOError):
                message = os.read(reader, PIPE_BYTES).decode("utf-8", "replace")
        finally:
            os.close(reader)
            pipe.unlink()
        return process.exitcode or 0, message

    def _hash_result(self, name: str) -> Mapping[str, str]:
        return hash_tree(self._root / name)


def _run_command(arguments: list[str], root: Path, messages: Path, before: Callable[[], None]) -> None:
    """Runs a command in a process of its own."""
    from ...cli.main import main

    main.add_command(publish)
    for name in ("home", "cache", "state"):
        os.environ["HOME" if name == "home" else f"XDG_{name.upper()}_HOME"] = str(root / name)
    os.environ["TMPDIR"] = tempfile.tempdir = str(root / "tmp")
    os.chdir(root)
    output = os.open(messages, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", closefd=False) for descriptor in (1, 2))  # they were files
    before()
    main(arguments, prog_name="edgepress")


def choose_points(points: int, count: int) -> list[int]:
    """Operations, evenly spread over a command.

    Args:
        points: Number of operations that there are.
        count: How many to choose; 0: all.
    """
    if not count or count >= points:
        return list(range(points))
    return sorted({round(index * (points - 1) / max(count - 1, 1)) for index in range(count)})


def try_verb(name: str, count: int, source: Path, folder: Path) -> list[tuple[str, FaultReport]]:
    """Lets a command fail with each of its faults.

    Args:
        name: The command.
        count: Operations that fail for each fault; 0: all.
        source: The pipeline.
        folder: An empty folder to work in.

    Returns:
        The faults, and what became of the command with each.

    Raises:
        ClickException: The command fails even if nothing disturbs it.
    """
    prepare_server()
    verb = VERBS[name]
    runner = FaultRunner(verb, source, folder, source.with_name("cache"))
    points = choose_points(runner.points, min((number for number in (count, verb.max_points) if number), default=0))
    reports = []
    for fault in verb.faults:
        report = runner.try_fault(fault, points)
        reports.append((fault, report))
        click.echo(
            f"{name} {fault}: {report.points} points, {report.tried} tried, {len(report.problems)} failed", err=True
        )
    return reports


def prepare_server() -> None:
    """Says what the server imports that commands are forked from. It starts with the first command."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before the server imports torch
    _SERVER.set_forkserver_preload([PRELOADED])
