"""Adapts a recipe to the size of the pipeline that it is used for."""

from __future__ import annotations

from pathlib import Path

from ..common.errors import UserError
from ..recipes.schema import Recipe
from ..storage.layout import Artifact, is_pipeline
from ..storage.parameter_count import count_parameters
from ..storage.weight_files import find_weight_folders


def adapt_recipe(recipe: Recipe, pipeline: Path) -> Recipe:
    """Applies what a recipe says of large models, if a pipeline is large. Only headers of weights are read.

    Args:
        recipe: The recipe.
        pipeline: A diffusers folder, quantized or not, or an artifact.
    """
    folder = pipeline if is_pipeline(pipeline) else Artifact(pipeline).model
    if recipe.large_model is None or not is_pipeline(folder):
        return recipe.for_model(0)
    try:
        has_weights = bool(find_weight_folders(folder))
        parameters = count_parameters(folder) if has_weights else _count_in_classes(folder)
    except UserError:  # of a component that cannot be read; the stage that reads it says so
        parameters = 0
    return recipe.for_model(parameters)


def _count_in_classes(folder: Path) -> int:
    """Counts the parameters of a pipeline that has only configs, as planning needs no more."""
    from .empty_modules import build_empty_component  # imports torch

    return sum(
        parameter.numel()
        for file in sorted(folder.glob("*/config.json"))
        for parameter in build_empty_component(file.parent).parameters()
    )
