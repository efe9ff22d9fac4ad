"""Adapts a recipe to the size of the pipeline that it is used for."""

from __future__ import annotations

from pathlib import Path

from ..common.errors import UserError
from ..recipes.schema import Recipe
from ..storage.layout import Artifact, is_pipeline
from ..storage.parameter_count import count_parameters


def adapt_recipe(recipe: Recipe, pipeline: Path) -> Recipe:
    """Applies what a recipe says of large models, if a pipeline is large. Only headers of weights are read.

    Args:
        recipe: The recipe.
        pipeline: A diffusers folder, quantized or not, or an artifact.
    """
    folder = pipeline if is_pipeline(pipeline) else Artifact(pipeline).model
    try:
        parameters = count_parameters(folder) if recipe.large_model and is_pipeline(folder) else 0
    except UserError:  # of weights that cannot be read; the stage that reads them says so
        parameters = 0
    return recipe.for_model(parameters)
