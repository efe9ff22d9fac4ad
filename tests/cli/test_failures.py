"""How commands end that fail: a sentence, and an exit code for users' mistakes, interruptions or defects."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from helpers.failing_command import failing, make_root

from edgepress.cli.failures import describe_failure
from edgepress.cli.main import main
from edgepress.common.errors import UserError


def error_message(result: Result, exit_code: int) -> str:
    """The only line of standard error."""
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


def run(error: BaseException, exit_code: int, name: str = "work") -> str:
    return error_message(CliRunner().invoke(failing(error, name), [name], prog_name="edgepress"), exit_code)


def system_error(number: int, *names: str) -> OSError:
    return OSError(number, os.strerror(number), *names)


# ---------------------------------------------------------------- what users can change


def test_a_current_folder_that_was_deleted_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert "The current folder no longer exists. Change to another one" in run(system_error(errno.ENOENT), 2)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("Something is wrong. Fix it."), "Something is wrong. Fix it."),
        (system_error(errno.ENOSPC, "/out/x"), "No space left: /out/x"),
        (system_error(errno.EDQUOT), "No space left (Disk quota exceeded)"),
        (system_error(errno.EACCES, "/out"), "Permission denied: /out"),
        (system_error(errno.EROFS, "/out"), "Permission denied: /out"),
        (system_error(errno.EIO, "/x"), "Reading or writing failed: /x (Input/output error). Check the disk"),
        (system_error(errno.EMFILE), "Too many files are open (Too many open files). Raise the limit"),
        (system_error(errno.ENOENT, "/x"), "No such file or directory: /x. Check this path"),
        (system_error(errno.ENOMEM), "There is not enough memory."),
        (ImportError("libGL.so.1: cannot open shared object file", name="cv2"), "The package cv2 cannot be imported"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "pip install 'edgepress[all]'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_the_machine_refuses_is_a_sentence(error: BaseException, message: str) -> None:
    assert message in run(error, 2)


def allocate_with_torch() -> None:
    torch.empty(2**50, dtype=torch.float64)


def allocate_with_python() -> None:
    bytes(2**60)


def fail_in_onnxruntime() -> None:
    raise onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException("Non-zero status code: std::bad_alloc")


def fail_while_handling() -> None:
    try:
        allocate_with_python()
    except MemoryError as error:
        raise ValueError("no weights") from error


@pytest.mark.parametrize(
    "error",
    [
        UserError("a\nb\x1b[2J is wrong. Fix it."),
        system_error(errno.ENOENT, "a\nb\x1b[2J"),
        KeyboardInterrupt("a\nb\x1b[2J"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_names_cannot_break_a_message_into_lines_or_steer_the_terminal(error: BaseException) -> None:
    assert r"a\nb\x1b[2J" in run(error, 130 if isinstance(error, KeyboardInterrupt) else 2)


@pytest.mark.parametrize("arguments", [["--a\n\x1b[2J"], ["work", "a\n\x1b[2J"], ["a\n\x1b[2J"]], ids=repr)
def test_arguments_cannot_either(arguments: list[str]) -> None:
    result = CliRunner().invoke(failing(ValueError()), arguments)
    assert result.exit_code == 2
    assert r"a\n\x1b[2J" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("work", [allocate_with_torch, allocate_with_python, fail_in_onnxruntime, fail_while_handling])
def test_memory_that_is_missing_is_not_a_defect(work: Callable[[], None]) -> None:
    message = error_message(CliRunner().invoke(make_root(work), ["work"]), 2)
    assert message.startswith("Error: There is not enough memory")
    assert "enforce fail" not in message


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"--recipe", "--max-memory", "--output"}, "Try a lower --max-memory."),
        ({"--size", "--tile"}, "Try a smaller --size or --tile."),
        ((), "Close other programs, or use a machine with more memory."),
    ],
)
def test_only_options_that_a_command_has_are_recommended(options: Collection[str], advice: str) -> None:
    assert describe_failure(MemoryError(), "edgepress work", options).message.endswith(advice)
    message = describe_failure(system_error(errno.ENOSPC, "/x"), "edgepress work", options).message
    assert ("--output" in message) == ("--output" in options)


# ---------------------------------------------------------------- interruptions


@pytest.mark.parametrize(("verb", "message"), [("quantize", "the same command resumes"), ("export", "starts over")])
def test_ctrl_c_says_whether_the_same_command_resumes(verb: str, message: str) -> None:
    assert message in run(KeyboardInterrupt(), 130, verb)


def test_an_interruption_may_say_what_was_kept() -> None:
    assert "after 3 images" in run(KeyboardInterrupt("Interrupted after 3 images."), 130)


# ---------------------------------------------------------------- defects


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "edgepress" / "tracebacks"


class PanicException(BaseException):
    """What libraries in Rust raise; it is no Exception there either."""


@pytest.mark.parametrize(
    "error",
    [ValueError("a fault\nwith details"), OSError("a fault"), RecursionError("a fault"), PanicException("a fault")],
    ids=lambda error: type(error).__name__,
)
def test_a_defect_is_one_line_that_names_the_saved_traceback(state: Path, error: BaseException) -> None:
    """An OSError without a number comes from a library, not from the machine."""
    message = run(error, 3)
    assert f"edgepress work failed ({type(error).__name__}: a fault). This is a defect, please report it" in message
    (file,) = state.iterdir()
    assert str(file) in message
    text = file.read_text("utf-8")
    assert "in work" in text
    assert f"{type(error).__name__}: a fault" in text


def test_a_defect_names_the_subcommand_and_the_file(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("device: mine")

    open_file = Path.open

    def fail(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == recipe:
            raise IndexError("list index out of range")
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail)
    result = CliRunner().invoke(main, ["recipes", "show", str(recipe)], prog_name="edgepress")
    message = error_message(result, 3)
    assert message.startswith(f"Error: edgepress recipes show failed on {recipe} (IndexError: list index")
    assert list(state.iterdir())


@pytest.mark.usefixtures("state")
def test_tracebacks_go_to_the_temporary_folder_where_the_state_folder_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    file = re.search(r"report it with (\S+),", run(ValueError("x"), 3))
    assert file
    assert Path(file[1]).parent == tmp_path
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    assert "report it with the traceback that --debug shows" in run(ValueError("x"), 3)


def test_old_tracebacks_are_deleted(state: Path) -> None:
    state.mkdir(parents=True)
    for number in range(30):
        (state / f"edgepress-2000-{number}.txt").touch()
    run(ValueError("x"), 3)
    assert len(list(state.iterdir())) == 20
