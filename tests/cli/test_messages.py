"""Messages help: an option that one names is an option of the command that shows it, and no Python object is in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import edgepress
from edgepress.cli.main import main

ROOT = Path(edgepress.__file__).resolve().parent
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
COMMAND = re.compile(r"['`]edgepress ((?:[a-z]+ )*[a-z]+)([^'`]*)['`]")  # quoted in a message, with its options
NO_MESSAGES = {"export/onnx/tensorrt.py", "recipes/schema.py"}  # options of trtexec, and documentation
# The commands that run what is in a folder. What is in other folders may run in any.
COMMANDS_OF = {
    "quantize": ("quantize",),
    "export/onnx": ("export onnx",),
    "export/rknn": ("export rknn",),
    "export": ("export onnx", "export rknn"),
    "evaluate": ("evaluate",),
    "perf": ("bench",),
}


def find_options(group: click.Group, prefix: str = "") -> Iterator[tuple[str, set[str]]]:
    """The options of every command, by the command's words."""
    for name, command in group.commands.items():
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        yield f"{prefix}{name}", options
        if isinstance(command, click.Group):
            yield from find_options(command, f"{prefix}{name} ")


OPTIONS = dict(find_options(main))
LIBRARY = ("common", "export", "models", "numerics", "perf", "pipelines", "prompts", "quantize", "recipes", "runtime")
MODULES = [
    path
    for room in (*LIBRARY, "evaluate", "storage")
    for path in sorted((ROOT / room).rglob("*.py"))
    if path.relative_to(ROOT).as_posix() not in NO_MESSAGES
]


def strings_in(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module with their lines, f-strings in one piece; no docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    inside = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    inside |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [value.value if isinstance(value, ast.Constant) else "…" for value in node.values]
            yield node.lineno, "".join(map(str, parts))


def allowed_options(path: Path) -> set[str]:
    """The options that all commands have that run a module."""
    folder = path.relative_to(ROOT).parent.as_posix()
    commands = next((COMMANDS_OF[key] for key in COMMANDS_OF if f"{folder}/".startswith(f"{key}/")), None)
    return set.intersection(*(OPTIONS[name] for name in commands)) if commands else set()


def find_wrong_options(path: Path) -> Iterator[str]:
    for line, text in strings_in(path):
        rest = text
        for match in COMMAND.finditer(text):
            wrong = set(OPTION.findall(match[2])) - OPTIONS.get(match[1], set())
            yield from (f"{path.relative_to(ROOT)}:{line}: edgepress {match[1]} has no {option}" for option in wrong)
            rest = rest.replace(match[0], "")
        for option in set(OPTION.findall(rest)) - allowed_options(path):
            yield f"{path.relative_to(ROOT)}:{line}: not every command that shows this has {option}"


def test_the_commands_are_seen() -> None:
    assert {"quantize", "export onnx", "export rknn", "evaluate", "evaluate report", "recipes show"} <= set(OPTIONS)
    assert {"--force", "--restart", "--no-gates"} <= OPTIONS["quantize"] | OPTIONS["evaluate"]


def test_messages_name_options_that_there_are() -> None:
    assert [problem for path in MODULES for problem in find_wrong_options(path)] == []


@pytest.mark.parametrize(
    ("text", "number"),
    [("Use --force.", 1), ("Run 'edgepress quantize --force'.", 0), ("Run 'edgepress generate --force'.", 1)],
)
def test_wrong_options_are_found(text: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "storage").mkdir()
    module = tmp_path / "storage" / "module.py"
    module.write_text(f'"""Says --nothing."""\n\nMESSAGE = f"{{1}}: {text}"\n')
    assert len(list(find_wrong_options(module))) == number


def test_messages_hold_no_python_objects() -> None:
    """The message of an error is quoted, not its repr; lists are joined."""
    objects = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError"):
                continue
            for value in ast.walk(node):
                if isinstance(value, ast.FormattedValue):
                    is_repr = value.conversion == ord("r") and ast.unparse(value.value) in ("error", "reason")
                    is_list = isinstance(value.value, ast.List | ast.ListComp | ast.Dict | ast.Set | ast.SetComp)
                    if is_repr or is_list:
                        objects.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert objects == []
