"""Every message for users, read from the source: it names a file, an option or a value, and one thing to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest
from helpers.advice import ADVICE, VALUE

import edgepress

ROOT = Path(edgepress.__file__).resolve().parent
OUTSIDE = {"tests", "build", "dist", "artifacts", "docs", "findings", "view"}
# What is called so says what to do.
ADVICE_NAMES = re.compile(
    r"advice|advise_\w+|remedy|hint|known|obstacle|explanation|_?explain_\w+|suggest_\w+|"
    r"[A-Z_]*(?:ADVICE|AGAIN|HINT)|SINGLE_FILE"
)
NAMED = re.compile(rf"{VALUE}|--[a-z]|'[^']+'|`[^`]+`|\b[a-z_]+\.[a-z_]+\b|\b[a-z_]+: ")


@cache
def sources() -> tuple[Path, ...]:
    """The modules of the package."""
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return tuple(sorted(path for path in paths if path.parts[0] not in OUTSIDE and not path.parts[0].startswith(".")))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"))


def text_of(node: ast.expr, wrapped: Collection[str] = ()) -> str | None:
    """The text of a literal with `VALUE` for each value; None of anything else.

    Args:
        node: The argument of an error.
        wrapped: Names of the user errors that it is raised from, which have advice themselves.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part, wrapped) or "" for part in node.values)
    if isinstance(node, ast.FormattedValue):
        name = name_of(node.value)
        return f"Use {VALUE}" if name in wrapped or ADVICE_NAMES.fullmatch(name) else VALUE
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = text_of(node.left, wrapped), text_of(node.right, wrapped)
        return "".join(part if part is not None else VALUE for part in parts)
    return None


def name_of(node: ast.expr) -> str:
    """The name of a variable, or of a function that is called; empty for anything else."""
    node = node.func if isinstance(node, ast.Call) else node
    return node.id if isinstance(node, ast.Name) else ""


@cache
def messages() -> tuple[tuple[str, str], ...]:
    """Place and text of every message that is a literal."""
    return tuple(find_messages())


def find_messages() -> Iterator[tuple[str, str]]:
    for path in sources():
        for call, wrapped in find_errors(parsed(path)):
            text = text_of(call.args[0], wrapped)
            if text is not None:
                yield f"{path}:{call.lineno}", text


def find_errors(tree: ast.Module) -> Iterator[tuple[ast.Call, set[str]]]:
    """Every error for users that a module makes, with the names of the user errors that it is raised from."""
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    inside = {
        id(node): {handler.name}
        for handler in handlers
        if isinstance(handler.type, ast.Name) and handler.type.id == "UserError" and handler.name
        for node in ast.walk(handler)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError":
            yield node, inside.get(id(node), set())


def find_foreign_words(tree: ast.Module) -> Iterator[int]:
    """The lines of errors for users that say no more than what a library's error says."""
    for call, wrapped in find_errors(tree):
        text = text_of(call.args[0], wrapped) or VALUE
        names = {node.id for node in ast.walk(call.args[0]) if isinstance(node, ast.Name)}
        if "error" in names and not re.search(r"\w", text):
            yield call.lineno


@pytest.mark.slow
def test_messages_are_found() -> None:
    modules = {place.split(":")[0] for place, _ in messages()}
    assert {"recipes/loader.py", "storage/checkpoint.py", "runtime/pipeline.py"} <= modules
    assert len(messages()) > 150


@pytest.mark.slow
def test_every_message_names_a_file_an_option_or_a_value() -> None:
    assert [f"{place}: {text}" for place, text in messages() if not NAMED.search(text)] == []


@pytest.mark.slow
def test_every_message_says_what_to_do() -> None:
    silent = [f"{place}: {text}" for place, text in messages() if not ADVICE.search(text)]
    assert silent == []


@pytest.mark.slow
def test_no_message_is_a_librarys_words_alone() -> None:
    alone = [f"{path}:{line}" for path in sources() for line in find_foreign_words(parsed(path))]
    assert alone == []


SYSTEM_ERRORS = {"OSError", "UnicodeDecodeError", "Exception", "BaseException"}


def find_system_words(tree: ast.Module) -> Iterator[int]:
    """The lines of errors for users that hold what Python makes of an error of the system, such as "[Errno 2]"."""
    for handler in ast.walk(tree):
        if not isinstance(handler, ast.ExceptHandler) or handler.type is None:
            continue
        caught = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
        calls = (node for node in ast.walk(handler) if isinstance(node, ast.Call) and name_of(node) == "UserError")
        for value in (node for call in calls for node in ast.walk(call) if isinstance(node, ast.FormattedValue)):
            if caught & SYSTEM_ERRORS and ast.unparse(value.value) in (handler.name, f"str({handler.name})"):
                yield value.lineno


@pytest.mark.slow
def test_errors_of_the_system_are_summarized() -> None:
    assert [f"{path}:{line}" for path in sources() for line in find_system_words(parsed(path))] == []


@pytest.mark.parametrize(
    ("kind", "value", "is_found"),
    [
        ("OSError", "error", True),
        ("(ValueError, OSError)", "error", True),
        ("ValueError", "error", False),
        ("OSError", "summarize_error(error)", False),
    ],
)
def test_words_of_the_system_are_recognized(kind: str, value: str, is_found: bool) -> None:
    tree = ast.parse(RAISED.format(kind=kind, text=f'f"Cannot read it ({{{value}}}). Check it."'))
    assert bool(list(find_system_words(tree))) == is_found


RAISED = "try:\n    work()\nexcept {kind} as error:\n    raise UserError({text}) from error\n"


@pytest.mark.parametrize(
    ("kind", "text", "is_alone"),
    [
        ("ValueError", "str(error)", True),
        ("ValueError", "error.args[0]", True),
        ("ValueError", 'f"{error}"', True),
        ("ValueError", 'f"{error}."', True),
        ("ValueError", 'f"{path}: {error}"', True),
        ("ValueError", 'f"{path} is corrupt ({error}). Download it again."', False),
        ("ValueError", 'f"{explain_value(error.errors()[0])}."', False),
        ("ValueError", "message", False),
        ("UserError", 'f"{path}: {error}"', False),
    ],
)
def test_words_of_libraries_are_recognized(kind: str, text: str, is_alone: bool) -> None:
    tree = ast.parse(RAISED.format(kind=kind, text=text))
    silent = [
        text
        for call, wrapped in find_errors(tree)
        if (text := text_of(call.args[0], wrapped)) and not ADVICE.search(text)
    ]
    assert bool(list(find_foreign_words(tree)) or silent) == is_alone


def test_every_message_is_whole_sentences() -> None:
    """It ends with a period, a question mark, a command to copy, or a value that is a sentence itself."""
    assert [f"{place}: {text}" for place, text in messages() if not re.search(rf"[.?'{VALUE}]$", text)] == []


@pytest.mark.parametrize(
    ("text", "is_helpful"),
    [
        (f"{VALUE} is missing. Download the model again.", True),
        (f"Invalid size {VALUE}: it must be at least 64.", True),
        (f"{VALUE} is corrupt.", False),
    ],
)
def test_advice_is_recognized(text: str, is_helpful: bool) -> None:
    assert bool(ADVICE.search(text)) == is_helpful
