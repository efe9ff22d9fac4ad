"""Turns exceptions into sentences and exit codes: users' mistakes, what the machine refuses, interruptions, defects."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..common.errors import UserError
from ..common.requirements import reject_failed_import
from ..common.traceback_files import save_traceback

USER_ERROR_EXIT_CODE = 2
DEFECT_EXIT_CODE = 3
SIGNAL_EXIT_CODE = 128  # plus the signal's number, as shells have it
RESUMABLE_VERBS = ("quantize", "evaluate")  # these keep what is finished
MAX_REASON_CHARACTERS = 200
PACKAGE = __name__.partition(".")[0]

MEMORY_MESSAGES = (  # parts of what libraries say, in lower case
    "bad_alloc", "can't allocate memory", "cannot allocate memory", "failed to allocate memory", "not enough memory",
    "out of memory", "unable to allocate", "failed to map segment", "can't start new thread",
)  # fmt: skip
MEMORY_AMOUNT = re.compile(r"\d[\d.]* ?(?:bytes|[KMGTPE]i?B)\b")  # in such messages
MEMORY_OPTIONS = {  # that lower the memory, by name; only those that a command has are recommended
    "--max-memory": "a lower --max-memory",
    "--size": "a smaller --size",
    "--tile": "--tile",
    "--low-memory": "--low-memory",
    "--no-check": "--no-check",
}
SPACE, RIGHTS = ("No space left", "Free some disk space"), ("Permission denied", "Change the permissions")
SYSTEM_ERRORS: Mapping[int, tuple[str, str]] = {  # what is wrong, and what to do
    errno.ENOSPC: SPACE,
    errno.EDQUOT: SPACE,
    errno.EFBIG: SPACE,
    errno.EACCES: RIGHTS,
    errno.EPERM: RIGHTS,
    errno.EROFS: RIGHTS,
    errno.EIO: ("Reading or writing failed", "Check the disk or network drive"),
    errno.EMFILE: ("Too many files are open", "Raise the limit with 'ulimit -n 4096'"),
    errno.ENFILE: ("Too many files are open", "Close other programs"),
}


@dataclass(frozen=True)
class Failure:
    """How a command ends that failed.

    Attributes:
        message: What is wrong and what to do, in a sentence or two.
        exit_code: The exit code of the process.
    """

    message: str
    exit_code: int


def describe_failure(
    error: BaseException, command: str, options: Collection[str] = (), signals: Sequence[int] = ()
) -> Failure:
    """Describes an exception that ended a command. A defect's traceback is saved.

    Args:
        error: The exception.
        command: The command as it is called, such as `edgepress export onnx`.
        options: The names of its options, such as `--output`.
        signals: The signals that interrupted the command; libraries may have made another error of them.
    """
    if signals or isinstance(error, KeyboardInterrupt):
        reason = str(error) if isinstance(error, KeyboardInterrupt) else ""
        number = signals[0] if signals else signal.SIGINT
        return Failure(reason or _describe_interruption(command), SIGNAL_EXIT_CODE + number)
    try:
        reject_failed_import(error)
    except UserError as failed_import:
        error = failed_import
    message = _describe_user_error(error, options)
    if message is not None:
        return Failure(message, USER_ERROR_EXIT_CODE)
    return Failure(_describe_defect(error, command), DEFECT_EXIT_CODE)


def is_broken_pipe(error: BaseException) -> bool:
    """Whether the reader of the output has left, which is no error to speak of."""
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def _describe_interruption(command: str) -> str:
    is_resumable = command.split()[-1] in RESUMABLE_VERBS
    hint = "finished work is kept, and the same command resumes." if is_resumable else "the same command starts over."
    return f"Interrupted; {hint}"


def _describe_user_error(error: BaseException, options: Collection[str]) -> str | None:
    """Describes what users can change; None: the error is a defect."""
    if isinstance(error, UserError):
        return str(error)
    if is_out_of_memory(error):
        choices = " or ".join(text for option, text in MEMORY_OPTIONS.items() if option in options)
        advice = f"Try {choices}." if choices else "Close other programs, or use a machine with more memory."
        amount = MEMORY_AMOUNT.search(str(error))
        return f"There is not enough memory{f' for {amount[0]}' if amount else ''}. {advice}"
    if isinstance(error, OSError) and error.errno is not None:
        return _describe_system_error(error, options)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was missing: of this error, or of what it was raised from."""
    for cause in _iter_causes(error):
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM):
            return True
        text = str(cause).lower()
        if any(message in text for message in MEMORY_MESSAGES):
            return True
    return False


def _iter_causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _describe_system_error(error: OSError, options: Collection[str]) -> str:
    where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes | Path) else ""
    reason = error.strerror or type(error).__name__
    if error.errno == errno.ENOENT and not where and not _has_current_folder():
        return "The current folder no longer exists. Change to another one, then try again."
    if error.errno is None or error.errno not in SYSTEM_ERRORS:
        return f"{reason}{where}. Check {'this path' if where else 'the paths that were given'}, then try again."
    problem, advice = SYSTEM_ERRORS[error.errno]
    another = ", or choose another --output" if "--output" in options else ""
    return f"{problem}{where} ({reason}). {advice}{another}."


def _has_current_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def _describe_defect(error: BaseException, command: str) -> str:
    file = _find_file(error)
    where = f" on {file}" if file else ""
    saved = save_traceback(error)
    report = f"with {saved}, which holds the traceback" if saved else "with the traceback that --debug shows"
    return f"{command} failed{where}{_format_reason(error, name=True)}. This is a defect, please report it {report}."


def _format_reason(error: BaseException, name: bool = False) -> str:
    """The first line of what an error says, in parentheses; nothing if it says nothing."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "").rstrip(".")
    if name:
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f" ({text[:MAX_REASON_CHARACTERS]})" if text else ""


def _find_file(error: BaseException) -> Path | None:
    """The file or folder that the innermost function of edgepress was working on, by its variables; None: unknown."""
    trace, file = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] == PACKAGE:
            paths = [value for value in trace.tb_frame.f_locals.values() if isinstance(value, Path)]
            file = next(filter(os.path.exists, paths), file)
        trace = trace.tb_next
    return file
