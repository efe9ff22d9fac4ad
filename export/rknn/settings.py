"""The section `rknn` of a recipe."""

from __future__ import annotations

from ...common.errors import UserError
from ...recipes.rknn import RknnSettings
from ...recipes.schema import Recipe


def require_rknn_settings(recipe: Recipe) -> RknnSettings:
    """Returns the section `rknn` of a recipe.

    Raises:
        UserError: The recipe has none.
    """
    if recipe.rknn is None:
        raise UserError(
            f"The recipe for {recipe.device} has no section 'rknn'. Add one, such as rknn: {{target: rk3588}}."
        )
    return recipe.rknn
