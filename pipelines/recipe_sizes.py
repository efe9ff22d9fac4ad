"""Checks the image sizes in a recipe against a pipeline, so that none proves impossible after hours or on a board."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..models.base.family import Family
from ..models.base.image_size import check_image_size
from ..recipes.key_errors import checking_key
from ..recipes.presets import Presets
from ..recipes.schema import Recipe

Configs = Mapping[str, Mapping[str, Any]]


def check_later_sizes(recipe: Recipe, family: Family, configs: Configs) -> None:
    """Checks the sizes that the stages after quantization use.

    Args:
        recipe: The recipe, for a pipeline of this size.
        family: The pipeline's family, which is described.
        configs: Configs of the components, by folder name.

    Raises:
        RecipeValueError: The pipeline cannot generate images of a size.
    """
    for size in recipe.export.sizes:
        with checking_key("export.sizes", recipe.export.sizes):
            check_image_size(family, configs, *size)
    if recipe.evaluation.size != "native":
        with checking_key("evaluation.size", recipe.evaluation.size):
            check_image_size(family, configs, *recipe.evaluation.size)
    check_preset_sizes(recipe.presets, family, configs)


def check_preset_sizes(presets: Presets, family: Family, configs: Configs) -> None:
    """Checks the sizes of presets.

    Args:
        presets: The recipe's presets.
        family: The pipeline's family, which is described.
        configs: Configs of the components, by folder name.

    Raises:
        RecipeValueError: The pipeline cannot generate images of a size.
    """
    for name, preset in presets:
        if preset.size != "native":
            with checking_key(f"presets.{name}.size", preset.size):
                check_image_size(family, configs, *preset.size)
