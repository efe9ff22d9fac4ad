"""Drives rknn-toolkit2 in an environment of its own: a worker process that does one job at a time.

The toolkit needs older libraries than edgepress. Its licence is proprietary: nothing of it is part of edgepress.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from types import TracebackType
from typing import Any
from uuid import uuid4

from ...common.errors import UserError

REPOSITORY_ROOT = Path(__file__).parents[2]
PYTHON_VARIABLE = "EDGEPRESS_RKNN"  # environment variable: the path of another Python that has the toolkit
INSTALL_HINT = "Run 'make setup-rknn', or set EDGEPRESS_RKNN to a Python that has it"
WORKER_SCRIPT = Path(__file__).with_name("toolkit_worker.py")
LOG_FILE, TEMPORARY_FOLDER = "log", "tmp"  # in the working directory
FOLDER_PREFIX = "edgepress-rknn-"  # of working directories in the temporary folder; a random number follows
FOLDER_NAME = re.compile(rf"{FOLDER_PREFIX}[0-9a-f]{{32}}")
MIN_STALE_SECONDS = 60  # a younger folder may belong to a worker that is being started
EXIT_TIMEOUT_S = 5  # for a worker to exit by itself
ANSI_COLORS = re.compile(r"\x1b\[[0-9;]*m")
MAX_ERROR_CHARS = 200


@dataclass(frozen=True)
class ToolkitReply:
    """The result of a job.

    Attributes:
        answer: What the worker answered.
        log: The toolkit's log of the job.
        seconds: Time of the job.
        peak_bytes: Peak resident memory of the worker so far.
    """

    answer: dict[str, Any]
    log: str
    seconds: float
    peak_bytes: int


class Toolkit:
    """A worker process with the toolkit. It starts with the first job, and ends when the context is left.

    Args:
        timeout_s: Time that a job may take, in seconds.
        folder: Working directory of the worker, with its temporary files, which take up to gigabytes. It replaces what
            is there, and is deleted when the toolkit is closed. Default: a new folder in the temporary folder.
    """

    def __init__(self, timeout_s: float = 3600, folder: Path | None = None) -> None:
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._reply_pipe = -1
        self._given_folder = folder
        self._folder: Path | None = None

    def __enter__(self) -> Toolkit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """Working directory of the worker, for files that are passed to it; deleted when the toolkit is closed."""
        self._ensure_started()
        assert self._folder is not None
        return self._folder

    def call(self, name: str, **arguments: Any) -> ToolkitReply:
        """Runs a job in the worker.

        Args:
            name: Name of a method of `toolkit_worker.ModelStore`.
            **arguments: Its arguments, as JSON can hold them.

        Raises:
            UserError: The toolkit is not installed; or the job failed, exceeded its time, or ended the worker.
        """
        process = self._ensure_started()
        assert process.stdin is not None
        log = self.folder / LOG_FILE
        log_offset, started = log.stat().st_size, monotonic()
        line = ""
        try:
            process.stdin.write(json.dumps({"call": name} | arguments).encode() + b"\n")
            process.stdin.flush()
            line = self._read_reply(started + self._timeout_s)
        except TimeoutError as error:
            self._end(exit_timeout_s=0)  # in a job, it does not notice that it is to exit
            raise UserError(
                f"rknn-toolkit2 took more than {self._timeout_s:.0f} s in '{name}'. Raise the limit with "
                "'edgepress export rknn --timeout', or make parts smaller with rknn.blocks in the recipe."
            ) from error
        except BrokenPipeError as error:
            last_line = _format_last_line(_read_log(log, log_offset))
            self.close()
            raise UserError(
                f"rknn-toolkit2 exited unexpectedly in '{name}'{last_line}. Free memory, or make parts smaller with "
                "rknn.blocks in the recipe."
            ) from error
        except BaseException:  # a late reply would be taken for that of another job
            self._end(exit_timeout_s=0)
            raise
        answer = json.loads(line)
        if "error" in answer:
            raise UserError(
                f"rknn-toolkit2 failed in '{name}': {answer['error'][-MAX_ERROR_CHARS:]}. Try another precision."
            )
        return ToolkitReply(answer, _read_log(log, log_offset), monotonic() - started, _get_peak_bytes(process.pid))

    def close(self) -> None:
        """Ends the worker and all processes that it started."""
        self._end(EXIT_TIMEOUT_S)

    def _end(self, exit_timeout_s: float) -> None:
        if self._process is not None:
            _terminate(self._process, exit_timeout_s)
            self._process = None
            os.close(self._reply_pipe)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _ensure_started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            import fcntl  # Windows has none

            python = find_interpreter()
            self._folder = _create_folder(self._given_folder)
            self._reply_pipe, worker_end = os.pipe()
            with (self._folder / LOG_FILE).open("ab") as log:
                fcntl.flock(log, fcntl.LOCK_SH)  # the worker inherits it, and holds it as long as it lives
                self._process = subprocess.Popen(
                    [python, "-I", WORKER_SCRIPT, str(worker_end)],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    cwd=self._folder,
                    env=os.environ | {"TMPDIR": str(self._folder / TEMPORARY_FOLDER)},
                    pass_fds=(worker_end,),
                    start_new_session=True,
                )
            os.close(worker_end)
        return self._process

    def _read_reply(self, deadline: float) -> str:
        """Reads the next reply.

        Raises:
            TimeoutError: The deadline has passed.
            BrokenPipeError: The worker exited.
        """
        reply = b""
        while not reply.endswith(b"\n"):
            ready, _, _ = select.select([self._reply_pipe], [], [], max(deadline - monotonic(), 0))
            if not ready:
                raise TimeoutError
            chunk = os.read(self._reply_pipe, 65536)
            if not chunk:
                raise BrokenPipeError
            reply += chunk
        return reply.decode()


def find_interpreter() -> Path:
    """Returns the Python that has the toolkit.

    Raises:
        UserError: There is none.
    """
    python = Path(os.environ.get(PYTHON_VARIABLE) or REPOSITORY_ROOT / ".venv-rknn/bin/python")
    if not python.exists():
        raise UserError(f"rknn-toolkit2 is not installed ({python} is missing). {INSTALL_HINT}.")
    return python


def find_stale_folders() -> list[Path]:
    """Returns the working directories in the temporary folder whose owner was killed before it could delete them."""
    folders = Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*")
    return sorted(folder for folder in folders if FOLDER_NAME.fullmatch(folder.name) and _is_stale(folder / LOG_FILE))


def _is_stale(log: Path) -> bool:
    import fcntl

    try:
        with log.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while a worker lives
            return time() - log.stat().st_mtime > MIN_STALE_SECONDS
    except OSError:  # in use, another user's, or just deleted
        return False


def _create_folder(folder: Path | None) -> Path:
    """Creates a working directory: an empty one at the given place, or a new one in the temporary folder."""
    if folder is None:
        for stale in find_stale_folders():
            shutil.rmtree(stale, ignore_errors=True)
        folder = Path(tempfile.gettempdir(), f"{FOLDER_PREFIX}{uuid4().hex}")
        folder.mkdir(mode=0o700)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    (folder / TEMPORARY_FOLDER).mkdir()
    return folder.absolute()


def _terminate(process: subprocess.Popen[bytes], exit_timeout_s: float) -> None:
    """Lets a worker exit, then kills it and all processes of its session."""
    assert process.stdin is not None
    try:
        process.stdin.close()
        process.wait(exit_timeout_s if process.poll() is None else 0)
    except (BrokenPipeError, subprocess.TimeoutExpired):
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read_log(log: Path, offset: int) -> str:
    with log.open("rb") as stream:
        stream.seek(offset)
        return ANSI_COLORS.sub("", stream.read().decode("utf-8", "replace"))


def _format_last_line(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return f" ({lines[-1][-MAX_ERROR_CHARS:]})" if lines else ""


def _get_peak_bytes(pid: int) -> int:
    """Returns the peak resident memory of a process so far, in bytes; 0 if the system does not report it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
