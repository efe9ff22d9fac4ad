"""Runs edgepress in processes of their own that start at once: they are forked from a server that has the imports.

Importing torch, diffusers and transformers takes longer than most commands of a test. What is read while importing
(OMP_NUM_THREADS) and `python -m edgepress` itself are tested in new interpreters.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "diffusers.models.autoencoders.autoencoder_kl",
        "diffusers.pipelines.z_image.pipeline_z_image",
        "diffusers.schedulers.scheduling_flow_match_euler_discrete",
        "transformers.models.qwen3.modeling_qwen3",
        "edgepress.cli.main",
        "edgepress.quantize.run",
        "edgepress.benchmarks.reliability.fault_runner",
        "pytest",  # each process imports the main module again
    ]
)


@dataclass(frozen=True)
class Completed:
    """What a command left.

    Attributes:
        returncode: Its exit code, or the negative number of the signal that killed it.
        stdout: What it printed.
        stderr: What it printed as errors and progress.
    """

    returncode: int
    stdout: str
    stderr: str


class Command:
    """A command that runs, as `subprocess.Popen` has it."""

    def __init__(self, *arguments: str | Path, before: Callable[[], None] | None = None) -> None:
        """Starts it.

        Args:
            arguments: What follows `edgepress` on the command line.
            before: What the new process does first. A function that can be pickled.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="command-")
        self._files = [Path(self._folder.name) / name for name in ("stdout", "stderr")]
        sent = ([str(argument) for argument in arguments], self._files, dict(os.environ), before)
        self._process: ForkServerProcess = _SERVER.Process(target=_run, args=sent)
        self._process.start()

    def poll(self) -> int | None:
        """Returns the exit code, or None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def wait(self) -> Completed:
        """Waits until it has ended."""
        self._process.join()
        stdout, stderr = (file.read_text("utf-8") if file.exists() else "" for file in self._files)
        self._folder.cleanup()
        assert self._process.exitcode is not None
        return Completed(self._process.exitcode, stdout, stderr)


def run_command(*arguments: str | Path, before: Callable[[], None] | None = None) -> Completed:
    """Runs a command to its end.

    Args:
        arguments: What follows `edgepress` on the command line.
        before: What the new process does first. A function that can be pickled.
    """
    return Command(*arguments, before=before).wait()


def _run(
    arguments: Sequence[str], files: Sequence[Path], environment: dict[str, str], before: Callable[[], None] | None
) -> None:
    from edgepress.cli.main import main

    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server ignores it
    for file, descriptor in zip(files, (1, 2), strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    if before is not None:
        before()
    sys.argv = ["edgepress", *arguments]
    main(prog_name="edgepress")
