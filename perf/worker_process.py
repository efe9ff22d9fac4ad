"""The measured process, as seen by the one that measures: asked for pictures, watched, and told of when it dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

from ..common.errors import UserError
from .process_memory import parse_proc_file, read_process_rss, sample_memory

SAMPLE_INTERVAL_S = 0.1  # seconds between two looks
MAX_ERROR_CHARACTERS = 200  # characters of an error
MODULE = "edgepress.perf.worker"


class WorkerDiedError(Exception):
    """The process ended before it answered; the sentence says of what, without a full stop."""


class WorkerProcess:
    """A process that opens an artifact and paints; it ends when the context is left.

    ready: seconds from its start until it could read a prompt. opened: what it said of the artifact.

    Raises:
        UserError: what it said of a job that cannot be done.
        DiedError: it ended before it was ready.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._initial_oom_kills = _count_oom_kills()
        self._stack = ExitStack()
        self._log = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  the stack closes it
        answers, writing = os.pipe()
        self._responses = self._stack.enter_context(os.fdopen(answers, encoding="utf-8"))
        began = monotonic()
        self._process = self._start(writing)
        os.close(writing)
        try:
            self._sampler = self._stack.enter_context(sample_memory(self._process.pid, SAMPLE_INTERVAL_S))
            self.artifact_info = self._request(job)
        except BaseException:
            self.close()
            raise
        self.start_seconds = monotonic() - began

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read_rss(self) -> int:
        """Bytes that it holds in memory now.

        Raises:
            DiedError: it ended meanwhile.
        """
        now = read_process_rss(self._process.pid)
        if not now:
            raise WorkerDiedError(self._describe_exit())
        return now

    def generate(self, prompt: str, seed: int) -> dict[str, Any]:
        """How long a picture took, in the worker's words; the process waits from then on.

        Raises:
            UserError: it cannot be painted.
            DiedError: the process ended.
        """
        return self._request({"prompt": prompt, "seed": seed})

    def read_memory_peaks(self) -> dict[str, int]:
        """The largest values so far, in bytes: VmHWM, RssAnon, RssFile."""
        self._sampler.sample(self._process.pid)
        return {key: self._sampler.peak_bytes(key) for key in ("VmHWM", "RssAnon", "RssFile")}

    def get_disk_bytes_read(self) -> int | None:
        """Bytes that it has had from the disk as of the last look; None where the system does not tell."""
        return self._sampler.peaks.get("read_bytes")

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._stack.close()

    def _start(self, writing: int) -> subprocess.Popen[bytes]:
        """In a session of its own, so that Ctrl-C reaches this process alone."""
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, str(writing)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(writing,),
            start_new_session=True,
            bufsize=0,
        )

    def _request(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            line = self._responses.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):
            raise WorkerDiedError(self._describe_exit())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise UserError(answer["error"])
        return answer

    def _describe_exit(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"ended with exit code {code}{self._read_log_tail()}"
        killed = f"was killed by signal {-code} ({signal.strsignal(-code)})"
        short = _count_oom_kills() - self._initial_oom_kills
        return f"{killed}, and the kernel's count of kills for want of memory rose by {short}" if short else killed

    def _read_log_tail(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return f" ({lines[-1][-MAX_ERROR_CHARACTERS:]})" if lines else ""


def _count_oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since it started."""
    return parse_proc_file(Path("/proc/vmstat")).get("oom_kill", 0)
