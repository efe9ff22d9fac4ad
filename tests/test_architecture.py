"""The architecture of docs/architecture.md, read from the source itself: layout, floors, names, sizes."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import edgepress

ROOT = Path(edgepress.__file__).resolve().parent
OUTSIDE = {"tests", "build", "dist", "artifacts", "docs", "plugins", "findings"}
# Outside the package, where other tools look for them: their imports of edgepress are absolute (tests/plugins/).
PLUGINS = {"optimum.commands.register": "plugins/optimum/commands/register"}
IN_THE_ROOT = {"__init__.py", "__main__.py", "loading.py"}
TOP = {"cli", "benchmarks", "__main__"}  # may import every stage
STAGES = {"quantize", "export", "evaluate", "perf", "demo", "serving"}
FLOORS = [  # bottom to top
    {"common", "numerics"},
    {"storage", "prompts", "recipes"},
    {"models"},
    {"pipelines", "runtime", "loading"},
    STAGES,
    {"api"},
    TOP,
]
WEIGHT_FORMATS = ("export/comfyui", "export/compressed_tensors", "export/diffusers", "export/gguf")
HEAVY = {"torch", "diffusers", "transformers", "safetensors"}
MODEL_NAMES = re.compile(r"z[_ -]?image|qwen|flux|sd3|sdxl|stable[_ -]?diffusion", re.IGNORECASE)
MAX_LINES = {"module": 450, "function": 50}


# Words of this project's early dialect. The field has its own: quantize, generate, image, reports, measure.
NO_NAMES = re.compile(
    r"(?:^|_)(?:told|asked|wanted|weigh(?:ed|s)?|climb(?:ed|s)?|wish(?:es)?|aside|anew|paint(?:s|ed|er|ers|ing)?|"
    r"press(?:ed|es|ing)?|pictures?)(?:_|$)|^(?:one|other|others|own|ways?|words|sides|said|found|there|gone|kept|made)$",
    re.IGNORECASE,
)
NO_WORDS = re.compile(
    r"\b(?:press(?:ed|es|ing)?|paint(?:s|ed|er|ers|ing)?|pictures?|told|weigh(?:s|ed)?|climb(?:s|ed)?|aside|anew|wish(?:es)?)\b",
    re.IGNORECASE,
)
# Where such a word means what it says: words that are read in an image, keys of older files, fonts and drawings.
ALLOWED_NAMES = {
    "words": {  # of text, or 32-bit words
        "evaluate/backends",
        "evaluate/report",
        "demo/signs",
        "demo/training",
        "benchmarks/evaluation",
        "prompts",
        "export/graph/int4_operands.py",
        "tests/demo/signs",
        "tests/evaluate/backends/test_ocr.py",
        "tests/recipes/test_prompts.py",
    },
    "WORDS": {"tests/evaluate"},
    "own": {"models/shared/vae_tiling_npu_graphs.py"},  # the name of a graph's input in files that users have
    "press_key": {"tests/helpers/chromium.py"},
}


def files(*suffixes: str) -> list[Path]:
    """The files of the project, relative to the root: no hidden ones, no tests, nothing that is built."""
    paths: list[Path] = []
    for top in sorted(ROOT.iterdir()):
        if not top.name.startswith((".", "_")) and top.name not in OUTSIDE and not top.name.endswith(".egg-info"):
            paths += [top] if top.is_file() else sorted(top.rglob("*"))
    paths += [ROOT / "__init__.py", ROOT / "__main__.py"]
    return [path.relative_to(ROOT) for path in paths if path.is_file() and path.suffix in suffixes]


MODULES = files(".py")
TESTS = sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"))


def room(path: Path) -> str:
    """A module's first name within edgepress: `quantize` for quantize/plan.py, `loading` for loading.py."""
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


def folder_crossings(source: str, target: str) -> list[str]:
    """Imports that lead from a folder into another one."""
    crossed = []
    for path in MODULES:
        if str(path.parent) != source and not str(path).startswith(f"{source}/"):
            continue
        for level, name in imports(path):
            full = "/".join([*path.parts[: len(path.parts) - level], *name.split(".")]) if level else ""
            if full.startswith(f"{target}/"):
                crossed.append(f"{path} imports {full}")
    return crossed


def code_lines(function: ast.FunctionDef) -> int:
    """The lines of a function's body, without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def names_in(path: Path) -> Iterator[tuple[int, str]]:
    """Every name that a module binds, with its line."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
    yield 1, path.stem


def prose_in(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a module's comments and strings, but for single words: those are keys, such as of older files."""
    with (ROOT / path).open(encoding="utf-8") as file:
        for token in tokenize.generate_tokens(io.StringIO(file.read()).readline):
            kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
            if token.type in kinds and not re.fullmatch(r"[\"'][\w.-]+[\"']", token.string):
                yield from enumerate(token.string.splitlines(), token.start[0])


# ---------------------------------------------------------------- these tests themselves


def test_modules_are_seen() -> None:
    some = {"numerics/affine.py", "cli/main.py", "__init__.py", "models/base/family.py", "quantize/solver/layer.py"}
    assert some <= set(map(str, MODULES))
    assert not [path for path in MODULES if "tests" in path.parts or ".venv" in path.parts]


def test_imports_are_resolved() -> None:
    assert rooms_imported(Path("cli/quantize.py")) >= {"api", "recipes"}
    assert rooms_imported(Path("evaluate/metrics/psnr.py")) >= {"prompts", "evaluate"}
    assert "cli/main.py imports common" in crossings({"cli"}, {"common"})
    assert "torch" in libraries(Path("numerics/affine.py"))


def test_banned_names_are_recognized() -> None:
    assert all(NO_NAMES.search(name) for name in ("painter", "_told", "is_pressed", "other", "picture_size"))
    assert not any(NO_NAMES.search(name) for name in ("compressed", "expression", "another", "sidecar", "not_founded"))
    assert NO_WORDS.search("The pressed model.")
    assert not NO_WORDS.search("compressed, expressed, repainting")


# ---------------------------------------------------------------- layout


def test_the_root_holds_no_loose_modules() -> None:
    assert {path.name for path in MODULES if len(path.parts) == 1} == IN_THE_ROOT


def test_every_package_is_published() -> None:
    """A folder missing from the list is missing from the wheel."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    folders = {path.parent for path in MODULES if path.name == "__init__.py"}
    names = [".".join(["edgepress", *folder.parts]) for folder in folders]
    assert sorted(settings["packages"]) == sorted([*names, *PLUGINS])
    assert settings["package-dir"] == {"edgepress": ".", **PLUGINS}


def test_every_module_is_in_a_package() -> None:
    assert [str(path) for path in MODULES if not (ROOT / path.parent / "__init__.py").exists()] == []


def test_nothing_in_the_root_hides_a_library() -> None:
    """Python run from the repository's root finds the root's files and folders first.

    The folder `evaluate` is the exception: its name is given, and Hugging Face's package of that name is not used here.
    """
    taken = (set(packages_distributions()) | set(sys.stdlib_module_names)) - {"edgepress", "__main__"}
    assert {"torch", "diffusers", "click", "json"} <= taken
    taken |= {"onnx", "onnxruntime", "optimum", "rknn", "tensorrt", "datasets", "accelerate", "open_clip", "kernels"}
    taken |= {"profiling"}  # in the standard library from Python 3.15 on
    names = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert sorted(names & taken) == []


def test_tests_mirror_the_tree() -> None:
    """A folder of tests is a folder of the package, or holds what tests share."""
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert sorted(str(folder) for folder in folders if not (ROOT / folder).is_dir()) == []


# ---------------------------------------------------------------- floors


@pytest.mark.slow
def test_stages_never_import_each_other() -> None:
    assert crossings(STAGES, STAGES) == []


def test_every_room_stands_on_a_floor() -> None:
    assert ROOMS - set().union(*FLOORS) == set()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(FLOORS)))
def test_every_import_goes_down(number: int) -> None:
    assert crossings(FLOORS[number], set().union(*FLOORS[number + 1 :])) == []


@pytest.mark.slow
def test_nothing_but_benchmarks_imports_the_demo() -> None:
    assert crossings(ROOMS - {"benchmarks"}, {"demo"}) == []


def test_formats_do_not_import_each_other() -> None:
    assert folder_crossings("export/onnx", "export/rknn") == []
    assert folder_crossings("export/rknn", "export/onnx") == []
    formats = ["export/onnx", "export/rknn", *WEIGHT_FORMATS]
    crossed = [folder_crossings(source, target) for source in WEIGHT_FORMATS for target in formats if source != target]
    assert not any(crossed)
    assert folder_crossings("runtime/onnx", "runtime/rknn") == []  # parts on the CPU do run in ONNX Runtime


def test_the_runtime_never_imports_torch() -> None:
    assert [str(path) for path in MODULES if room(path) in ("runtime", "serving") and libraries(path) & HEAVY] == []


def test_what_the_command_line_needs_at_once_imports_nothing_heavy_at_its_top() -> None:
    """The tests of the command line start it; this one says which module would be to blame."""
    early = {"__init__", "__main__", "api", "cli", "common", "models", "prompts", "recipes", "storage"}
    late = {"models/shared", "storage/checkpoint.py"} | {
        f"models/{path.parent.name}" for path in ROOT.glob("models/*/family.py")
    }
    blamed = [path for path in MODULES if room(path) in early and libraries(path, top_only=True) & HEAVY]
    assert [str(path) for path in blamed if not {str(path), str(path.parent)} & late] == []


@pytest.mark.slow
def test_inside_the_package_imports_are_relative() -> None:
    """Absolute ones would need an installed edgepress, and find another one where there is one."""
    assert [str(path) for path in MODULES if "edgepress" in libraries(path)] == ["__main__.py"]


# ---------------------------------------------------------------- names and sizes


@pytest.mark.slow
def test_names_are_those_of_the_field() -> None:
    banned = [
        f"{path}:{line}: {name}"
        for path in [*MODULES, *TESTS]
        for line, name in names_in(path)
        if NO_NAMES.search(name) and not any(str(path).startswith(place) for place in ALLOWED_NAMES.get(name, ()))
    ]
    assert banned == []


@pytest.mark.slow
def test_prose_uses_the_words_of_the_field() -> None:
    documents = [
        *sorted((ROOT / "docs").rglob("*.md")),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile")),
    ]
    columns = Path("evaluate/results/history.py")  # of a database that users have
    lines = [(path, number, text) for path in MODULES if path != columns for number, text in prose_in(path)]
    lines += [
        (document.relative_to(ROOT), number, line)
        for document in documents
        for number, line in enumerate(document.read_text("utf-8").splitlines(), 1)
    ]
    assert [f"{path}:{number}: {text.strip()}" for path, number, text in lines if NO_WORDS.search(text)] == []


@pytest.mark.slow
def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path in MODULES:
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path))
    # Each family names its own host, text encoder and transformer; a family is a folder.
    shared = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert {n: p for n, p in shared.items() if not all(place.startswith("models/") for place in p)} == {}


@pytest.mark.slow
def test_files_and_functions_are_short() -> None:
    files = {str(path): len((ROOT / path).read_text("utf-8").splitlines()) for path in MODULES}
    assert {path: lines for path, lines in files.items() if lines > MAX_LINES["module"]} == {}
    functions = {
        f"{path}:{node.name}": code_lines(node)
        for path in MODULES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef)
    }
    assert {name: lines for name, lines in functions.items() if lines > MAX_LINES["function"]} == {}


# ---------------------------------------------------------------- what no room may do


@pytest.mark.slow
def test_no_model_is_named_outside_its_place() -> None:
    named = [
        f"{path}:{number}: {line.strip()}"
        for path in [*files(".py", ".yaml", ".yml", ".json", ".sh"), Path("Makefile")]
        if room(path) not in {"models", "demo", "recipes"} and path.parent != Path("benchmarks/synthetic")
        for number, line in enumerate((ROOT / path).read_text("utf-8").splitlines(), 1)
        if MODEL_NAMES.search(line)
    ]
    assert named == []


@pytest.mark.slow
def test_only_commands_print() -> None:
    printing = [
        f"{path}:{node.lineno}"
        for path in MODULES
        if room(path) != "cli"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []
