"""Plans a pipeline on a recipe's device, and refuses work that would end in something that the device cannot run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.arguments import check_arguments
from ..common.errors import UserError
from ..common.requirements import requires_extra
from ..models.registry import load_families
from ..pipelines.hub import read_pipeline_class, resolve_source
from ..pipelines.model_size import adapt_recipe
from ..pipelines.preflight import check_host, check_weight_formats
from ..pipelines.quantization_packages import read_quant_methods
from ..recipes.hardware import Gibibytes
from ..recipes.key_errors import naming_recipe
from ..recipes.presets import Side
from ..recipes.schema import ExportSettings, Recipe
from ..storage.layout import Artifact, is_pipeline
from ..storage.parameter_count import count_parameters
from .recipe_stages import check_recipe
from .recipes import load_checked, open_model

if TYPE_CHECKING:
    from ..export.planning.device_plan import DevicePlan

IGNORE_ADVICE = "Give --ignore-plan to go on nevertheless."
FORCE_NOTICE = "%s In this release 'edgepress quantize --force' ignores that; later --ignore-plan does."
FLOAT_BYTES = 4
logger = logging.getLogger(__name__)
SMALL_SHARE = 4  # a pipeline whose float32 weights take less than this part of the memory is not planned before work


@check_arguments
@requires_extra("quantize")
def plan(
    recipe: Recipe | str | Path,
    *,
    model: str | Path | None = None,
    size: tuple[Side, Side] | None = None,
    memory: Gibibytes | None = None,
) -> DevicePlan:
    """Plans a pipeline on a recipe's device from configs and headers: memory by phase, and the least time of an image.

    Args:
        recipe: A shipped recipe's name such as `orin`, a YAML file, or a recipe; it must have a section `hardware`.
        model: A diffusers folder, an artifact, a hub id, or `demo`; default: the recipe's.
        size: Height and width of the image in pixels; default: those of the preset `quality`.
        memory: Memory of the device in GiB; default: that of its smallest version.

    Returns:
        The plan; all of it is estimated. `print` shows it as a report.

    Raises:
        UserError: Bad input, a pipeline that edgepress cannot generate images with, or a package that is missing.
    """
    loaded = load_checked(recipe)
    source = open_model(recipe, loaded, model, resolve_source)
    folder = source if is_pipeline(source) else Artifact(source).model
    if is_pipeline(folder):
        check_weight_formats(folder)
    from ..export.planning.planner import plan_device

    resolved = adapt_recipe(loaded, source)
    with naming_recipe(recipe, resolved):
        if is_pipeline(source) and not read_quant_methods(source):
            if family := load_families().get(read_pipeline_class(source)):
                check_host(source, family)  # which the checks of the recipe read
            check_recipe(resolved, source)
        return plan_device(source, resolved, size, memory)


def require_fit_unless_forced(recipe: Recipe, source: Path, force: bool) -> None:
    """As `require_fit`, but goes on and says so if `force` is given, which meant that before there was `--ignore-plan`.

    Raises:
        UserError: The pipeline does not fit, and `force` is off.
    """
    try:
        require_fit(recipe, source, IGNORE_ADVICE)
    except UserError as error:
        if not force:
            raise
        logger.warning(FORCE_NOTICE, str(error).removesuffix(IGNORE_ADVICE).strip())


def require_fit(recipe: Recipe, source: Path, advice: str) -> None:
    """Refuses a pipeline that fits on no version of a device, neither with ONNX Runtime nor on its NPU.

    Nothing is refused where nothing is known: of devices whose recipe states no memory, and of pipelines that edgepress
    cannot generate images with.

    Args:
        recipe: The recipe for a pipeline of this size.
        source: A diffusers folder, or an artifact.
        advice: A sentence about how to go on nevertheless.

    Raises:
        UserError: It does not fit.
    """
    memory = recipe.hardware.memory if recipe.hardware else ()
    if not memory or not _needs_plan(source, memory[-1]):
        return
    from ..export.planning.planner import plan_device

    device_plan = plan_device(source, recipe, None, memory[-1])
    if recipe.rknn is not None and device_plan.verdict == "does not fit":
        from ..export.rknn.planning.estimator import plan_rknn

        if any(deployment.verdict == "fits" for deployment in plan_rknn(source, recipe).deployments):
            return
    device_plan.require_fits(advice)


def _needs_plan(source: Path, memory: float) -> bool:
    folder = source if is_pipeline(source) else Artifact(source).model
    try:
        family = load_families().get(read_pipeline_class(folder))
        weights = FLOAT_BYTES * count_parameters(folder)
    except UserError:  # the stage says what is wrong
        return False
    return family is not None and bool(family.host) and SMALL_SHARE * weights > memory * 2**30


def require_format(recipe: Recipe, export: ExportSettings, advice: str) -> None:
    """Refuses floats or products that the device computes wrongly.

    Args:
        recipe: The recipe.
        export: The settings of the export.
        advice: A sentence about how to go on nevertheless.

    Raises:
        UserError: The recipe's hardware does not list the format.
    """
    formats = recipe.hardware.formats if recipe.hardware else (export.precision,)
    uses_fp16 = export.precision == "int4" and export.float_dtype == "fp16" and "fp16" not in formats
    if export.precision in formats and not uses_fp16:
        return
    name = "int4 with fp16 floats" if uses_fp16 else export.precision
    reason = " Its processor sums float16 products in float16, which no check on x86 shows." if "16" in name else ""
    raise UserError(
        f"{recipe.device} does not compute {name} correctly.{reason} Choose a --precision from {', '.join(formats)}. "
        f"{advice}"
    )
