"""The measured process as seen from outside: sends it prompts, samples its memory, and reports why it ended."""

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

SAMPLE_INTERVAL_S = 0.1
MAX_ERROR_CHARACTERS = 200
MODULE = "edgepress.perf.worker"


class WorkerDiedError(Exception):
    """The worker ended before it answered. The message completes the sentence "The worker process ..."."""


class WorkerProcess:
    """A process that opens an artifact and generates images; it ends when the context is left.

    Args:
        job: The artifact and settings, as `worker.serve` reads them.

    Attributes:
        start_seconds: Time from the start of the process until it accepted a prompt.
        artifact_info: What the worker reported of the artifact.

    Raises:
        UserError: The worker reported that it cannot do the job.
        WorkerDiedError: The worker ended before it accepted a prompt.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        self._initial_oom_kills = _count_oom_kills()
        self._stack = ExitStack()
        self._log = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  the stack closes it
        read_end, write_end = os.pipe()
        self._responses = self._stack.enter_context(os.fdopen(read_end, encoding="utf-8"))
        start = monotonic()
        self._process = self._start(write_end)
        os.close(write_end)
        try:
            self._sampler = self._stack.enter_context(sample_memory(self._process.pid, SAMPLE_INTERVAL_S))
            self.artifact_info = self._request(job)
        except BaseException:
            self.close()
            raise
        self.start_seconds = monotonic() - start

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def generate(self, prompt: str, seed: int) -> dict[str, Any]:
        """Generates an image; afterwards the worker waits.

        Returns:
            The timings, as `worker.time_generation` reports them.

        Raises:
            UserError: The worker cannot generate the image.
            WorkerDiedError: The worker ended.
        """
        return self._request({"prompt": prompt, "seed": seed})

    def read_rss(self) -> int:
        """Returns the current resident set size in bytes.

        Raises:
            WorkerDiedError: The worker has ended.
        """
        rss = read_process_rss(self._process.pid)
        if not rss:
            raise WorkerDiedError(self._describe_exit())
        return rss

    def read_memory_peaks(self) -> dict[str, int]:
        """Returns the peaks so far in bytes: VmHWM, RssAnon and RssFile."""
        self._sampler.sample(self._process.pid)
        return {key: self._sampler.peak_bytes(key) for key in ("VmHWM", "RssAnon", "RssFile")}

    def get_disk_bytes_read(self) -> int | None:
        """Returns the bytes read from disk until the last sample; None if the system does not report it."""
        return self._sampler.peaks.get("read_bytes")

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._stack.close()

    def _start(self, write_end: int) -> subprocess.Popen[bytes]:
        """Starts the worker in a session of its own, so that Ctrl-C does not reach it."""
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, str(write_end)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(write_end,),
            start_new_session=True,
            bufsize=0,
        )

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            line = self._responses.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):
            raise WorkerDiedError(self._describe_exit())
        response: dict[str, Any] = json.loads(line)
        if "error" in response:
            raise UserError(response["error"])
        return response

    def _describe_exit(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"ended with exit code {code}{self._read_log_tail()}"
        reason = f"was killed by signal {-code} ({signal.strsignal(-code)})"
        oom_kills = _count_oom_kills() - self._initial_oom_kills
        return f"{reason}; the kernel reports {oom_kills} out-of-memory kills meanwhile" if oom_kills else reason

    def _read_log_tail(self) -> str:
        """Returns the last line of the log in parentheses; empty if there is none."""
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return f" ({lines[-1][-MAX_ERROR_CHARACTERS:]})" if lines else ""


def _count_oom_kills() -> int:
    """Returns how many processes the kernel has killed for lack of memory since boot."""
    return parse_proc_file(Path("/proc/vmstat")).get("oom_kill", 0)
