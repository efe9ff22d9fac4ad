"""pyproject.toml: every extra holds what its rooms import, the base install is light, and constraints.txt pins all."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import edgepress

ROOT = Path(edgepress.__file__).resolve().parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
ROOMS = {  # the extra that a room's imports come from
    "common": "runtime",
    "prompts": "runtime",
    "recipes": "runtime",
    "runtime": "runtime",
    "perf": "runtime",
    "cli": "runtime",
    "serving": "server",
    "storage": "quantize",
    "models": "quantize",
    "pipelines": "quantize",
    "quantize": "quantize",
    "export": "export",
    "evaluate": "evaluate",
}
OPTIONAL = {
    "rknn",
    "rknnlite",
    "flip_evaluator",
    "open_clip",
    "peft",
    "gguf",
    "openvino",
    "ray",
}  # used only where they are installed
HEAVY = {"torch", "diffusers", "transformers", "accelerate", "safetensors", "onnx", "rapidocr"}


def list_requirements(extra: str) -> Iterator[Requirement]:
    """Yields the requirements of the base install and of an extra, including those of extras that it names."""
    yield from map(Requirement, PROJECT["dependencies"])
    queue = [*EXTRAS[extra]]
    while queue:
        requirement = Requirement(queue.pop())
        if requirement.name == "edgepress":
            queue += [line for name in requirement.extras for line in EXTRAS[name]]
        else:
            yield requirement


def list_distributions(extra: str) -> set[str]:
    """Returns the distributions that an extra installs, including indirect ones."""
    names: set[str] = set()
    queue = [requirement for requirement in list_requirements(extra) if _is_needed(requirement)]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if name not in names:
            names.add(name)
            queue += [each for each in map(Requirement, distribution(name).requires or []) if _is_needed(each)]
    return names


def _is_needed(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def list_imports(room: str) -> set[str]:
    """Returns the libraries that the modules of a room import, also inside functions."""
    libraries: set[str] = set()
    for file in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                libraries |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                libraries.add(str(node.module).partition(".")[0])
    return libraries - set(sys.stdlib_module_names) - OPTIONAL


@pytest.mark.slow
@pytest.mark.parametrize("room", ROOMS)
def test_an_extra_holds_what_its_room_imports(room: str) -> None:
    providers, installed = packages_distributions(), list_distributions(ROOMS[room])
    missing = [
        library
        for library in sorted(list_imports(room))
        if not {canonicalize_name(name) for name in providers.get(library, [])} & installed
    ]
    assert missing == []


def test_the_base_install_is_light() -> None:
    assert not {canonicalize_name(name) for name in HEAVY} & list_distributions("runtime")
    assert EXTRAS["runtime"] == []


@pytest.mark.slow
def test_all_and_dev_hold_every_stage() -> None:
    for extra in ("quantize", "export", "evaluate", "flip", "lora", "optimum", "server"):
        assert list_distributions(extra) <= list_distributions("dev")
    for extra in ("quantize", "export", "evaluate"):
        assert list_distributions(extra) <= list_distributions("all")


@pytest.mark.parametrize("extra", ["dev", "docs"])
def test_constraints_pin_every_requirement(extra: str) -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines)
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    for requirement in list_requirements(extra):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_the_documented_python_versions_are_classified() -> None:
    versions = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    assert PROJECT["requires-python"] == f">={versions[0]}"
