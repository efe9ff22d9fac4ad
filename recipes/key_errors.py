"""Values of a recipe that only prove wrong with a pipeline: what is wrong with them is said with their key and file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..common.validation import format_value
from .schema import Recipe


class RecipeValueError(UserError):
    """A value of a recipe that cannot be used.

    Args:
        key: The dotted key, such as `calibration.size`.
        value: The value.
        problem: What is wrong with it, and what to do.
    """

    def __init__(self, key: str, value: Any, problem: str) -> None:
        self.key, self.value, self.problem = key, value, problem
        super().__init__(f"{key} = {format_value(value)}: {problem}")


@contextmanager
def checking_key(key: str, value: Any) -> Iterator[None]:
    """Adds the key and the value of a recipe to what turns out to be wrong with them.

    Args:
        key: The dotted key.
        value: Its value in the recipe.
    """
    try:
        yield
    except RecipeValueError:
        raise
    except UserError as error:
        raise RecipeValueError(key, value, str(error)) from error


@contextmanager
def naming_recipe(source: Recipe | str | Path | None, recipe: Recipe | None) -> Iterator[None]:
    """Adds the name of a recipe to what is wrong with its values; the key is left out of what an argument replaced.

    Args:
        source: The recipe's name or file, or the recipe itself.
        recipe: The recipe as it was loaded, for the size of the pipeline.
    """
    try:
        yield
    except UserError as error:
        if not isinstance(error, RecipeValueError):
            raise
        if recipe is None or _get_value(recipe, error.key) != error.value:
            explanation = error.problem
            raise UserError(f"{explanation}") from error
        name = f"The recipe for {recipe.device}" if isinstance(source, Recipe) else f"Recipe {source}"
        raise UserError(f"{name}: {error}") from error


def _get_value(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for name in key.split("."):
        value = getattr(value, name, None)
    return value
