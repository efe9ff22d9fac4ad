"""The plan of the house (docs: the floors, the layout, and what no room may do), read from the source itself."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import edgepress

ROOT = Path(edgepress.__file__).resolve().parent
OUTSIDE = {"tests", "build", "dist", "artifacts", "docs", "plugins"}
# Outside the package, found by other tools there: their imports of edgepress are absolute (tests/plugins/).
PLUGINS = {"optimum.commands.register": "plugins/optimum/commands/register"}
TOP = {"cli", "benchmarks"}  # may import every stage
STAGES = {"quantize", "export", "evaluate"}
GROUND = {
    "artifact",
    "checkpoint",
    "errors",
    "grid",
    "int4",
    "products",
    "int8",
    "loading",
    "memory",
    "options",
    "progress",
    "prompt_sets",
    "prompts",
    "recipe",
    "recipes",
    "sampling",
    "source_code",
    "sources",
}
FLOORS = [GROUND, {"models", "demo"}, {"runtime"}, STAGES, TOP]  # bottom to top
HEAVY = {"torch", "diffusers", "transformers", "safetensors"}
MODEL_NAMES = re.compile(r"z[_ -]?image|qwen|flux|sd3|sdxl|stable[_ -]?diffusion", re.IGNORECASE)


def files(*suffixes: str) -> list[Path]:
    """The house's own files, relative to the root: no hidden ones, no tests, nothing that is built."""
    found = []
    for top in sorted(ROOT.iterdir()):
        if not top.name.startswith((".", "_")) and top.name not in OUTSIDE and not top.name.endswith(".egg-info"):
            found += [top] if top.is_file() else sorted(top.rglob("*"))
    found.append(ROOT / "__init__.py")
    return [path.relative_to(ROOT) for path in found if path.is_file() and path.suffix in suffixes]


MODULES = files(".py")


def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"))


def room(path: Path) -> str:
    """A module's first name within edgepress: `quantize` for quantize/fold.py, `int4` for int4.py."""
    return path.with_suffix("").parts[0]


ROOMS = {room(path) for path in MODULES} - {"__init__"}


def imports(path: Path, top_only: bool = False) -> Iterator[tuple[int, str]]:
    """The level (0: absolute) and dotted name of all that a module imports, at its top or inside functions as well."""
    tree = parsed(path)
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            stem = f"{node.module}." if node.module else ""
            yield from ((node.level, f"{stem}{alias.name}") for alias in node.names)


def libraries(path: Path, top_only: bool = False) -> set[str]:
    """The first names of absolute imports."""
    return {name.split(".")[0] for level, name in imports(path, top_only) if not level}


def rooms_imported(path: Path) -> set[str]:
    """The rooms of edgepress that a module imports from."""
    full = [[*path.parts[: len(path.parts) - level], *name.split(".")] for level, name in imports(path) if level]
    return {names[0] for names in full} & ROOMS


def crossings(sources: set[str], targets: set[str]) -> list[str]:
    """Imports that lead from one of some rooms into another one of some rooms."""
    return [
        f"{path} imports {target}"
        for path in MODULES
        if room(path) in sources
        for target in sorted(rooms_imported(path) & targets - {room(path)})
    ]


# ---------------------------------------------------------------- these tests themselves


def test_the_house_is_seen() -> None:
    assert {"int4.py", "cli.py", "__init__.py", "models/family.py", "quantize/command.py"} <= set(map(str, MODULES))
    assert not [path for path in MODULES if "tests" in path.parts or ".venv" in path.parts]


def test_imports_are_resolved() -> None:
    assert rooms_imported(Path("quantize/command.py")) >= {"recipe", "sources", "quantize"}
    assert rooms_imported(Path("cli.py")) >= {"errors", "evaluate", "quantize"}
    assert rooms_imported(Path("evaluate/metrics/psnr.py")) >= {"prompts", "evaluate"}
    assert "cli.py imports quantize" in crossings({"cli"}, STAGES)
    assert "torch" in libraries(Path("int4.py"))


# ---------------------------------------------------------------- layout


def test_every_package_is_published() -> None:
    """A folder missing from the list is missing from the wheel."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    folders = {path.parent for path in MODULES if path.name == "__init__.py"}
    names = [".".join(["edgepress", *folder.parts]) for folder in folders]
    assert sorted(settings["packages"]) == sorted([*names, *PLUGINS])
    assert settings["package-dir"] == {"edgepress": ".", **PLUGINS}


def test_every_module_is_in_a_package() -> None:
    assert [str(path) for path in MODULES if not (ROOT / path.parent / "__init__.py").exists()] == []


def test_no_file_in_the_root_hides_a_library() -> None:
    """Python run from the repository's root finds the root's files first."""
    taken = (set(packages_distributions()) | set(sys.stdlib_module_names)) - {"edgepress"}
    assert {"torch", "diffusers", "click", "json"} <= taken
    taken |= {"onnx", "onnxruntime", "optimum", "rknn", "tensorrt", "datasets", "accelerate", "open_clip", "kernels"}
    assert sorted({path.stem for path in ROOT.glob("*.py")} & taken) == []


# ---------------------------------------------------------------- floors


def test_stages_never_import_each_other() -> None:
    assert crossings(STAGES, STAGES) == []


def test_every_room_stands_on_a_floor() -> None:
    assert ROOMS - set().union(*FLOORS) == set()


@pytest.mark.parametrize("number", range(len(FLOORS)))
def test_every_import_goes_down(number: int) -> None:
    assert crossings(FLOORS[number], set().union(*FLOORS[number + 1 :])) == []


def test_only_the_top_floor_imports_stages() -> None:
    assert crossings(ROOMS - STAGES - TOP, STAGES) == []


def test_nothing_imports_the_top_floor_or_the_demo() -> None:
    assert crossings(ROOMS, TOP | {"demo"}) == []


def test_the_runtime_never_imports_torch() -> None:
    assert [str(path) for path in MODULES if room(path) == "runtime" and libraries(path) & HEAVY] == []


def test_what_the_command_line_needs_at_once_imports_nothing_heavy_at_its_top() -> None:
    """The tests of the command line start it; this one says which module would be to blame."""
    early = {"__init__", "cli", "errors", "models", "progress", "prompt_sets", "prompts", "recipe", "sampling"}
    early |= {"sources"}
    blamed = [str(path) for path in MODULES if room(path) in early and libraries(path, top_only=True) & HEAVY]
    late = ("_graphs.py", "_reference.py")  # of a family; only export asks for them
    assert [path for path in blamed if not path.endswith(late)] == []


def test_inside_the_package_imports_are_relative() -> None:
    """Absolute ones would need an installed edgepress, and find another one where there is one."""
    assert [str(path) for path in MODULES if "edgepress" in libraries(path)] == []


# ---------------------------------------------------------------- what no room may do


def test_no_model_is_named_outside_its_place() -> None:
    named = [
        f"{path}:{number}: {line.strip()}"
        for path in [*files(".py", ".yaml", ".yml", ".json", ".sh"), Path("Makefile")]
        if room(path) not in {"models", "demo", "recipes"}
        for number, line in enumerate((ROOT / path).read_text("utf-8").splitlines(), 1)
        if MODEL_NAMES.search(line)
    ]
    assert named == []


def test_only_commands_print() -> None:
    printing = [
        f"{path}:{node.lineno}"
        for path in MODULES
        if path.name not in {"cli.py", "command.py"}
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []
