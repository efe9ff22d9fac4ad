"""How a command may end: it succeeds, or says in one sentence what is wrong and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator

from click.testing import Result

from .advice import ADVICE

WORK_BEGINS = 77  # exit code of a command that the fixture `no_work` has ended
ANSWERS = {"diff": (1,), "verify": (1,), "evaluate": (1,)}  # exit codes that are answers
FOREIGN = re.compile(r"PosixPath|Errno|<class|object at|validation error|type=|Traceback|NoneType|codec can't")


def find_ending_problems(name: str, result: Result) -> Iterator[str]:
    """What is wrong with how a command has ended.

    Args:
        name: The command.
        result: How it has ended.
    """
    if result.exit_code not in (0, 2, WORK_BEGINS, *ANSWERS.get(name, ())):
        yield f"exit code {result.exit_code}"
    if result.exit_code != 2:
        return
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    if len(lines) != 1 or result.stderr.splitlines()[-1] != lines[0]:
        yield "not one error at the end"
        return
    sentence = lines[0].removeprefix("Error: ")
    if not ADVICE.search(sentence):
        yield "no advice"
    if FOREIGN.search(sentence):
        yield "words of a library"
