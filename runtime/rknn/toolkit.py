"""Drives rknn-toolkit2, which lives in an environment of its own: one process, one job at a time, nothing of it left.

The toolkit wants older libraries than edgepress does. Its licence is proprietary: nothing of it is part of edgepress.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

from ...common.errors import UserError

REPOSITORY_ROOT = Path(__file__).parents[2]
PYTHON_VARIABLE = "EDGEPRESS_RKNN"  # names another Python that has the toolkit
INSTALL_HINT = "run 'make setup-rknn', or name a Python that has it in EDGEPRESS_RKNN"
WORKER_SCRIPT = Path(__file__).with_name("toolkit_worker.py")
EXIT_TIMEOUT_S = 5  # seconds that a worker may take to end by itself
ANSI_COLORS = re.compile(r"\x1b\[[0-9;]*m")
MAX_ERROR_CHARS = 200  # characters of an error


@dataclass(frozen=True)
class ToolkitReply:
    """A job: what the worker answered, the toolkit's log of it, and seconds.

    peak: the worker's largest resident set so far, in bytes.
    """

    answer: dict[str, Any]
    log: str
    seconds: float
    peak_bytes: int


class Toolkit:
    """A worker, started at the first job and ended, with all that it started, when the context is left."""

    def __init__(self, timeout_s: float = 3600) -> None:
        """limit: seconds that a job may take."""
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._reply_pipe = -1
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Toolkit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """Where the worker runs, for files that are handed to it; it goes when the toolkit is closed."""
        self._ensure_started()
        assert self._folder is not None
        return Path(self._folder.name)

    def call(self, name: str, **job: Any) -> ToolkitReply:
        """Has the worker do a job.

        Raises:
            UserError: there is no toolkit; the job failed, took too long, or ended the worker.
        """
        process = self._ensure_started()
        assert process.stdin is not None
        log = self.folder / "log"
        begin, started = log.stat().st_size, monotonic()
        line = ""
        try:
            process.stdin.write(json.dumps({"call": name} | job).encode() + b"\n")
            process.stdin.flush()
            line = self._read_reply(started + self._timeout_s)
        except (BrokenPipeError, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            said = "" if late else _get_last_line(_read_log(log, begin))
            self.close()
            what = f"took more than {self._timeout_s:.0f} s" if late else f"ended{said}"
            raise UserError(
                f"rknn-toolkit2 {what} in '{name}'; give it more time or memory, or smaller parts."
            ) from error
        except BaseException:  # an answer that comes later would be taken for another job's
            self.close()
            raise
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(f"rknn-toolkit2 refuses to {name}: {answer['error'][-MAX_ERROR_CHARS:]}.")
        return ToolkitReply(answer, _read_log(log, begin), monotonic() - started, _get_peak_bytes(process.pid))

    def close(self) -> None:
        """Ends the worker and whatever it started."""
        if self._process is not None:
            _terminate(self._process)
            self._process = None
            os.close(self._reply_pipe)
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _ensure_started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            python = find_interpreter()
            self._folder = tempfile.TemporaryDirectory(prefix="edgepress-rknn-")
            self._reply_pipe, writing = os.pipe()
            with (Path(self._folder.name) / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [python, "-I", WORKER_SCRIPT, str(writing)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd=self._folder.name,
                    pass_fds=(writing,),
                    start_new_session=True,
                )
            os.close(writing)
        return self._process

    def _read_reply(self, deadline: float) -> str:
        """The next answer; raises TimeoutError at the deadline and BrokenPipeError where the worker ended."""
        found = b""
        while not found.endswith(b"\n"):
            ready, _, _ = select.select([self._reply_pipe], [], [], max(deadline - monotonic(), 0))
            if not ready:
                raise TimeoutError
            piece = os.read(self._reply_pipe, 65536)
            if not piece:
                raise BrokenPipeError
            found += piece
        return found.decode()


def find_interpreter() -> Path:
    """The Python that has the toolkit.

    Raises:
        UserError: there is none.
    """
    python = Path(os.environ.get(PYTHON_VARIABLE) or REPOSITORY_ROOT / ".venv-rknn/bin/python")
    if not python.exists():
        raise UserError(f"rknn-toolkit2 is not installed ({python} is missing); {INSTALL_HINT}.")
    return python


def _terminate(process: subprocess.Popen[bytes]) -> None:
    """Asks a worker to end, then kills it and all processes of its session."""
    assert process.stdin is not None
    try:
        process.stdin.close()
        process.wait(EXIT_TIMEOUT_S if process.poll() is None else 0)
    except (BrokenPipeError, subprocess.TimeoutExpired):
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read_log(log: Path, begin: int) -> str:
    with log.open("rb") as stream:
        stream.seek(begin)
        return ANSI_COLORS.sub("", stream.read().decode("utf-8", "replace"))


def _get_last_line(log: str) -> str:
    words = [line.strip() for line in log.splitlines() if line.strip()]
    return f" ({words[-1][-MAX_ERROR_CHARS:]})" if words else ""


def _get_peak_bytes(process: int) -> int:
    """The largest resident set of a process so far, in bytes; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{process}/status").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
