"""Checks what a recipe asks of the stages after quantization, so that none refuses it after the whole work."""

from __future__ import annotations

from pathlib import Path

from ..models.registry import load_families
from ..pipelines.hub import read_pipeline_class
from ..recipes.key_errors import checking_key
from ..recipes.schema import Recipe


def check_recipe(recipe: Recipe, source: Path) -> None:
    """Checks the sections `export`, `rknn` and `evaluation` of a recipe, from configs alone.

    What a family cannot do at all is not asked of it: recipes are for a device, whatever the pipeline is.

    Args:
        recipe: The recipe for a pipeline of this size.
        source: A diffusers folder in its original precision.

    Raises:
        UserError: A stage would refuse a setting.
    """
    if recipe.evaluation.clip != "auto":
        from ..evaluate.backends.clip.spec import parse_clip_spec

        with checking_key("evaluation.clip", recipe.evaluation.clip):
            parse_clip_spec(recipe.evaluation.clip)
    family = load_families().get(read_pipeline_class(source))
    if family is not None and family.graphs:
        from ..export.onnx.preflight import check_recipe as check_onnx

        check_onnx(source, recipe)
    if family is not None and family.npu and recipe.rknn is not None:
        from ..export.rknn.preflight import check_recipe as check_rknn

        check_rknn(source, recipe)
