"""Loads the recipes that are shipped, and those that users write."""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ..common.arguments import check_arguments
from ..common.errors import UserError
from ..common.regular_files import require_regular
from ..common.validation import explain_value
from ..storage.recognition import reject_path
from .deprecation import RENAMED_RECIPES, upgrade_settings
from .frozen_model import FrozenModel, explain_settings
from .schema import Recipe

RECIPES_DIR = Path(__file__).parent
MAX_RECIPE_BYTES, MAX_DEPTH = 2**20, 100
INTEGER_TAG, FLOAT_TAG = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
AMBIGUOUS_NUMBER = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-9.]+)+)")
MERGE_TAG = "tag:yaml.org,2002:merge"  # of the key <<, which may repeat keys that it merges

Settings = TypeVar("Settings", bound=FrozenModel)

_logger = logging.getLogger("edgepress")


def recipe_names() -> list[str]:
    """The names of the recipes that are shipped, sorted."""
    return sorted(path.stem for path in RECIPES_DIR.glob("*.yaml"))


@check_arguments
def load_recipe(name_or_path: str | Path) -> Recipe:
    """Loads a shipped recipe by name, or a YAML file.

    Keys and names of earlier releases are read, with a warning that says what replaces them.

    Args:
        name_or_path: The name of a shipped recipe, such as `orin`, or the path of a file that ends in .yaml or .yml.

    Raises:
        UserError: There is no such recipe, the file cannot be read, a key is unknown (the message suggests the nearest
            one) or given twice, or a value is invalid.
    """
    if str(name_or_path) in RENAMED_RECIPES:
        return _load_renamed(str(name_or_path))
    path = _find_recipe(str(name_or_path))
    content = _read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"Recipe {path} is not a mapping of keys to values. Start it with 'device: NAME'.")

    def warn(old: str, new: str) -> None:
        _logger.warning("Recipe %s: '%s' is deprecated; write '%s' instead.", path, old, new)

    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"Recipe {path}: {explain_settings(Recipe, error)}") from error
    upgrade_settings(content, report=warn)
    return recipe


def _load_renamed(name: str) -> Recipe:
    """Loads what a recipe of the release before stood for: a recipe and a model, with an artifact of the old name."""
    device, model = RENAMED_RECIPES[name]
    _logger.warning(
        "The recipe %s is deprecated and will be removed in the next release. Use %s with the model %s instead.",
        name, device, model,
    )  # fmt: skip
    return load_recipe(device).model_copy(update={"device": name, "model": model})


def _find_recipe(name: str) -> Path:
    is_path = name.lower().endswith((".yaml", ".yml"))
    path = Path(name) if is_path else RECIPES_DIR / f"{name}.yaml"
    names = recipe_names()
    if path.is_dir():
        raise reject_path(path, "Give a YAML file")
    if path.exists() and (is_path or name in names):
        return path
    known = f"Give a file that ends in .yaml, or a shipped recipe: {', '.join(names)}."
    with suppress(OSError):  # a name that is too long
        if name.strip() and not is_path and Path(name).exists():
            raise reject_path(Path(name), known.removesuffix("."))
    raise UserError(f"There is no recipe file {path}. {known}" if is_path else f"There is no recipe '{name}'. {known}")


class _Loader(yaml.SafeLoader):
    """Reads plain YAML and rejects what it would silently read as something else.

    That is a key that is given twice, of which YAML keeps the last, and a number such as 030 or 1:30, which is an octal
    or sexagesimal one to YAML 1.1.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys: list[Any] = []
        for key_node, _ in node.value:
            key = None if key_node.tag == MERGE_TAG else self.construct_object(key_node, deep=True)
            if key is not None and key in keys:
                problem = f"the key '{key}' is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            keys.append(key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """An integer or a decimal number."""
        if AMBIGUOUS_NUMBER.fullmatch(node.value):
            problem = f"the number {node.value} is ambiguous: write it in decimal, without leading zeros"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        is_integer = node.tag == INTEGER_TAG
        return self.construct_yaml_int(node) if is_integer else self.construct_yaml_float(node)


for _tag in (INTEGER_TAG, FLOAT_TAG):
    _Loader.add_constructor(_tag, _Loader.construct_number)


def _read_yaml(path: Path) -> Any:
    """Reads a YAML file.

    Raises:
        UserError: It cannot be read, or is not plain YAML. The message names the line.
    """
    require_regular(path, "Save the recipe to a file.")
    try:
        if path.stat().st_size > MAX_RECIPE_BYTES:
            raise UserError(f"{path} is too large to be a recipe ({path.stat().st_size} bytes). Give a recipe.")
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise UserError(f"Recipe {path} cannot be read: {error.strerror}. Check the file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"Recipe {path} is not UTF-8 text. Save it in that encoding.") from error
    too_deep = f"Recipe {path} is nested too deeply. Write it as docs/recipes.md shows."
    if _bracket_depth(text) > MAX_DEPTH:  # PyYAML's time grows with the square of the depth
        raise UserError(too_deep)
    try:
        return yaml.load(text, _Loader)
    except RecursionError as error:
        raise UserError(too_deep) from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = _explain_problem(str(error.problem or error.context))
        raise UserError(f"Recipe {path}{line} is not readable YAML: {problem}. Correct it.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"Recipe {path} is not readable YAML: {' '.join(str(error).split())}. Correct it.") from error
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
    ) as error:  # PyYAML's for !!timestamp x and the like
        raise UserError(f"Recipe {path} has a value that does not match its tag. Remove the tags (!!).") from error


def _explain_problem(problem: str) -> str:
    """What PyYAML says, as a clause of its own."""
    tag = re.search(r"constructor for the tag '([^']+)'", problem)
    if tag:
        return f"it has the tag {tag[1]!r}, and tags are not read"
    return "it has a second document, after '---'" if "another document" in problem else problem


def _bracket_depth(text: str) -> int:
    """How many brackets are open at most."""
    return max(accumulate((character in "[{") - (character in "]}") for character in text), default=0)


def validate_settings(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Makes a recipe, or a section of one, from values.

    Raises:
        UserError: A value is invalid. The message names the setting, its value and what is accepted.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{explain_value(error.errors()[0])}.") from error
