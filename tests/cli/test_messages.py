"""Messages help: an option that one names is an option of the command that shows it, and no Python object is in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

import edgepress
from edgepress.cli.main import main

ROOT = Path(edgepress.__file__).resolve().parent
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
DECLARATION = re.compile(r"--\S+")  # of an option, or a part of one
COMMAND = re.compile(r"['`]edgepress ((?:[a-z]+ )*[a-z]+)([^'`]*)['`]")  # quoted in a message, with its options
# Options of trtexec; documentation; what recommends options only to commands that have them.
NO_MESSAGES = {
    "export/onnx/tensorrt.py",
    "recipes/schema.py",
    "cli/failures.py",
    "cli/options.py",
    "cli/usage_errors.py",
    "api/repository_card.py",
    "api/repository_usage.py",
    "api/model_card.py",
}
WEIGHT_EXPORTS = tuple(f"export {name}" for name in ("comfyui", "compressed-tensors", "diffusers", "gguf"))
# The commands that run what is in a folder, module or function. What is elsewhere may run in any.
COMMANDS_OF = {
    "api/candidates.py": ("compare",),
    "api/functions.py/export_onnx": ("export onnx",),
    "api/functions.py/plan_evaluation": ("evaluate",),
    "api/functions.py/_require_no_pipelines": ("evaluate",),
    "api/hub_publishing.py": ("publish",),
    "api/planning.py/require_format": ("export onnx",),
    "api/planning.py": ("quantize", "export onnx"),
    "api/weight_exports.py": WEIGHT_EXPORTS,
    "cli/weight_exports.py": WEIGHT_EXPORTS,
    "cli/bench.py": ("bench",),
    "cli/execution_providers.py": ("bench", "generate"),
    "cli/evaluate.py": ("evaluate",),
    "cli/export_onnx.py": ("export onnx",),
    "cli/export_rknn.py": ("export rknn",),
    "cli/generate.py": ("generate",),
    "cli/quantize.py": ("quantize",),
    "cli/kit.py": ("kit", "wheelhouse"),
    "cli/serve.py": ("serve",),
    "common/cluster_address.py": ("quantize", "evaluate"),
    "common/ray_executor.py": ("quantize", "evaluate"),
    "runtime/batch.py": ("generate",),
    "api/conversion.py": ("convert",),
    "storage/new_folder.py": ("convert", "publish"),
    "serving/wheelhouse.py": ("wheelhouse",),
    "serving/board_kit.py": ("kit",),
    "serving": ("serve",),
    "quantize": ("quantize",),
    "export/onnx": ("export onnx",),
    "export/rknn": ("export rknn",),
    "export": ("export onnx", "export rknn"),
    "evaluate/comparison": ("compare",),
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
LIBRARY = (
    *("api", "cli", "common", "demo", "export", "models", "numerics", "perf", "pipelines", "prompts", "quantize"),
    *("recipes", "runtime", "serving"),
)
MODULES = [
    path
    for room in (*LIBRARY, "evaluate", "storage")
    for path in sorted((ROOT / room).rglob("*.py"))
    if path.relative_to(ROOT).as_posix() not in NO_MESSAGES
]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def strings_in(path: Path) -> Iterator[tuple[int, str, str]]:
    """The strings of a module with their lines and functions: f-strings whole, no docstrings, no declarations."""
    tree = parsed(path)
    inside = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    inside |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    names = {id(node): function.name for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        text = ""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [value.value if isinstance(value, ast.Constant) else "…" for value in node.values]
            text = "".join(map(str, parts))
        if text and not DECLARATION.fullmatch(text):
            yield getattr(node, "lineno", 0), names.get(id(node), ""), text


def allowed_options(path: Path, function: str = "") -> set[str]:
    """The options that all commands have that run a function."""
    place = f"{path.relative_to(ROOT).as_posix()}/{function}/"
    commands = next((COMMANDS_OF[key] for key in COMMANDS_OF if place.startswith(f"{key}/")), None)
    return set.intersection(*(OPTIONS[name] for name in commands)) if commands else set()


def find_wrong_options(path: Path) -> Iterator[str]:
    for line, function, text in strings_in(path):
        rest = text
        for match in COMMAND.finditer(text):
            wrong = set(OPTION.findall(match[2])) - OPTIONS.get(match[1], set())
            yield from (f"{path.relative_to(ROOT)}:{line}: edgepress {match[1]} has no {option}" for option in wrong)
            rest = rest.replace(match[0], "")
        for option in set(OPTION.findall(rest)) - allowed_options(path, function):
            yield f"{path.relative_to(ROOT)}:{line}: not every command that shows this has {option}"


def test_the_commands_are_seen() -> None:
    assert {"quantize", "export onnx", "export rknn", "evaluate", "evaluate report", "recipes show"} <= set(OPTIONS)
    assert {"--force", "--restart", "--no-gates"} <= OPTIONS["quantize"] | OPTIONS["evaluate"]


@pytest.mark.slow
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


CONTAINERS = re.compile(r"(?:list|dict|set|frozenset|tuple|Sequence|Mapping|Collection|Iterable)\b")
MAKERS = {"sorted": "list", "list": "list", "set": "set", "dict": "dict", "tuple": "tuple", "Path": "Path"}


def infer_types(function: ast.FunctionDef) -> dict[str, str]:
    """The types of a function's variables, as far as annotations and literals show them."""
    arguments = [*function.args.args, *function.args.kwonlyargs]
    types = {argument.arg: ast.unparse(argument.annotation) for argument in arguments if argument.annotation}
    for node in ast.walk(function):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            types[node.target.id] = ast.unparse(node.annotation)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            types[node.targets[0].id] = infer_type(node.value)
    return types


def infer_type(node: ast.expr) -> str:
    if isinstance(node, ast.List | ast.ListComp):
        return "list"
    if isinstance(node, ast.Dict | ast.DictComp | ast.Set | ast.SetComp):
        return "dict"
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    return MAKERS.get(node.func.id, "") if is_call else ""  # type: ignore[attr-defined]


def find_objects(tree: ast.Module) -> Iterator[int]:
    """The lines of errors for users that show a Python object: an error's or a path's repr, a class, a container."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        types = infer_types(function)
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
        for call in calls:
            if isinstance(call.func, ast.Name) and call.func.id == "UserError":
                yield from (value.lineno for value in ast.walk(call) if shows_object(value, types))


def shows_object(value: ast.AST, types: dict[str, str]) -> bool:
    if not isinstance(value, ast.FormattedValue):
        return False
    text, is_repr = ast.unparse(value.value), value.conversion == ord("r")
    kind = types.get(text, infer_type(value.value))
    if kind.startswith("tuple") and text.endswith("shape"):  # as every library writes shapes
        return False
    if CONTAINERS.match(kind) or (text.startswith("type(") and not text.endswith("__name__")):
        return True
    return is_repr and (text in ("error", "reason") or "Path" in kind)


@pytest.mark.slow
def test_messages_hold_no_python_objects() -> None:
    """The message of an error is quoted, not its repr; lists are joined."""
    assert [f"{path.relative_to(ROOT)}:{line}" for path in MODULES for line in find_objects(parsed(path))] == []


@pytest.mark.parametrize(
    ("value", "is_object"),
    [
        ("error!r", True),
        ("path!r", True),
        ("names", True),
        ("counts", True),
        ("[*names]", True),
        ("sorted(names)", True),
        ("type(path)", True),
        ("values", True),
        ("path", False),
        ("', '.join(names)", False),
        ("name!r", False),
        ("shape", False),
        ("type(path).__name__", False),
    ],
)
def test_python_objects_are_recognized(value: str, is_object: bool) -> None:
    code = (
        "def work(path: Path, names: Sequence[str], name: str, shape: tuple[int, ...]) -> None:\n"
        "    counts = {name: 1 for name in names}\n"
        "    values = sorted(names)\n"
        f'    raise UserError(f"{{path}} is wrong: {{{value}}}. Change it.")\n'
    )
    assert bool(list(find_objects(ast.parse(code)))) == is_object
