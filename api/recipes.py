"""Recipes as the functions use them: checked, with what arguments of a call and the size of a model change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from ..recipes.key_errors import checking_key, naming_recipe
from ..recipes.loader import load_recipe, validate_settings
from ..recipes.schema import METHOD_STEPS, ExportSettings, QuantizationSettings, Recipe


def load_checked(recipe: Recipe | str | Path, with_gates: bool = True) -> Recipe:
    """Loads a recipe, if it is not loaded yet, and checks what its schema does not know: the names of gates."""
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    sections = [loaded.evaluation, *([loaded.large_model.evaluation] if loaded.large_model else [])]
    if with_gates and any(section.gates for section in sections):
        from ..evaluate.metrics.registry import load_metrics
        from ..evaluate.results.gates import resolve_gates

        name = f"Recipe {recipe}" if not isinstance(recipe, Recipe) else f"The recipe for {recipe.device}"
        metrics = load_metrics()
        known = [*metrics.metrics, *metrics.unavailable]
        try:
            for section in sections:
                resolve_gates(section.gates, known, has_ground_truth=False)
        except UserError as error:
            raise UserError(f"{name}, evaluation.gates: {error}") from error
    return loaded


def open_model(
    recipe: Recipe | str | Path, loaded: Recipe, model: str | Path | None, resolve: Callable[[str], Path]
) -> Path:
    """Finds a recipe's pipeline, or the one that an argument names instead.

    Args:
        recipe: The recipe's name or file, or the recipe itself, for messages.
        loaded: The recipe.
        model: The argument; None: the recipe's.
        resolve: Finds a pipeline, or an artifact.

    Raises:
        UserError: There is none.
    """
    if model is not None:
        return resolve(str(model))
    with naming_recipe(recipe, loaded), checking_key("model", loaded.model):
        return resolve(loaded.model)


def override(
    recipe: Recipe,
    model: str | Path | None,
    method: str | None,
    loras: str | Path | Sequence[str | Path] = (),
    tune: str | float | None = None,
    budget: str | None = None,
) -> Recipe:
    """Replaces what arguments of a call say otherwise."""
    loras = [loras] if isinstance(loras, str | Path) else loras
    changes: dict[str, Any] = {"loras": tuple(map(str, loras))} if loras else {}
    if model is not None:
        changes["model"] = str(model)
    if method is not None:
        if method not in METHOD_STEPS:
            raise UserError(f"Unknown method '{method}'. Choose from: {', '.join(METHOD_STEPS)}.")
        changes["quantize"] = recipe.quantize.model_copy(update={"method": method, "steps": None})
    settings = {key: value for key, value in {"tune": tune, "budget": budget}.items() if value is not None}
    if settings or (method is not None and recipe.quantize.budget is not None):
        section = changes.get("quantize", recipe.quantize)
        changes["quantize"] = validate_settings(QuantizationSettings, section.model_dump() | settings)
    return recipe.model_copy(update=changes)


def override_export(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Replaces those settings of the ONNX export that are not None."""
    section = recipe.export.model_dump() | {key: value for key, value in changes.items() if value is not None}
    return recipe.model_copy(update={"export": validate_settings(ExportSettings, section)})


def override_rknn(recipe: Recipe, precision: str | None) -> Recipe:
    """Replaces the precision of the parts for an NPU, if one is given."""
    if precision is None or recipe.rknn is None:
        return recipe
    section = recipe.rknn.model_dump() | {"precision": precision}
    return validate_settings(Recipe, recipe.model_dump() | {"rknn": section})
