from __future__ import annotations

import pytest

from edgepress.common.errors import UserError
from edgepress.export.rknn.settings import require_rknn_settings
from edgepress.recipes.schema import Recipe


def test_the_section_of_a_recipe_is_returned() -> None:
    recipe = Recipe.model_validate({"device": "board", "rknn": {"target": "rk3576"}})
    assert require_rknn_settings(recipe).target == "rk3576"


def test_a_recipe_without_the_section_is_answered_with_one_that_is_valid() -> None:
    with pytest.raises(UserError, match=r"recipe for board has no section 'rknn'.* rknn: \{target: rk3588\}"):
        require_rknn_settings(Recipe.model_validate({"device": "board"}))
    assert Recipe.model_validate({"device": "board", "rknn": {"target": "rk3588"}}).rknn
