"""Checks a quantization from arguments, configs and headers, without torch: what is refused here is refused at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..common.device_names import check_device_name
from ..common.errors import UserError
from ..models.base.family import Family
from ..pipelines.families import find_family, is_described
from ..pipelines.lora_files import LoraSpec, check_lora_header, parse_loras
from ..pipelines.lora_names import check_lora_layers
from ..pipelines.preflight import check_images, check_pipeline, check_weight_formats, read_configs
from ..pipelines.recipe_sizes import check_later_sizes
from ..pipelines.sampling import SamplingParams, resolve_sampling
from ..pipelines.scheduler_class import check_scheduler_class
from ..prompts.prompt import Prompt, prompt_set_digest
from ..prompts.sets import load_prompt_set, resolve_prompt_set, warn_if_fewer
from ..recipes.budget import parse_budget
from ..recipes.key_errors import RecipeValueError, checking_key
from ..recipes.loader import validate_settings
from ..recipes.schema import GenerationSettings, QuantizationSettings, Recipe
from ..storage.checkpoint import Checkpoint
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX, Artifact
from ..storage.manifest import library_versions, read_manifest
from ..storage.own_files import check_own_files
from ..storage.parameter_count import read_loaded_headers
from ..storage.preflight import check_output, check_replaceable, is_within
from ..storage.weight_files import find_weight_folders, select_weight_files
from ..storage.weight_formats import is_awq
from .allocation.options import MIN_BITS, MIN_BITS_PER_WEIGHT
from .reuse_preflight import check_reuse
from .workspace import explain_other_inputs, find_workspaces

logger = logging.getLogger(__name__)

MAX_TEXT_PROMPTS = 128  # that components which only read the prompt are calibrated on


@dataclass(frozen=True)
class QuantizationInputs:
    """What a quantization is made from, as far as it can be checked without torch.

    Attributes:
        recipe: The recipe.
        source: The pipeline's folder.
        family: The description of its pipeline class.
        prompts: For calibration.
        sampling: How images of the calibration are generated.
        loras: The LoRAs to merge.
        reuse: Artifacts whose text encoders are taken as they are.
        device: Where PyTorch computes: `cpu`, `cuda`, `cuda:N` or `auto`.
    """

    recipe: Recipe
    source: Path
    family: Family
    prompts: Sequence[Prompt]
    sampling: SamplingParams
    loras: Sequence[LoraSpec]
    reuse: Sequence[Path]
    device: str = "cpu"


def check_inputs(
    recipe: Recipe,
    source: Path,
    output: Path,
    reuse: Sequence[Path],
    device: str = "cpu",
    *,
    force: bool,
    restart: bool,
) -> QuantizationInputs:
    """Checks everything that needs no class of a library and no weight.

    Args:
        recipe: The recipe.
        source: A diffusers folder in its original precision.
        output: The artifact folder.
        reuse: Artifacts whose text encoders are taken as they are.
        device: Where PyTorch computes: `cpu`, `cuda`, `cuda:N` or `auto`.
        force: Whether an artifact that was made from something else is replaced.
        restart: Whether a finished artifact is made again.

    Raises:
        UserError: There is no such device, the output cannot be written, a file of the pipeline is missing, a value
            of the recipe is impossible for it, a LoRA cannot be merged, nothing can be reused, or an artifact is in the
            way.
    """
    try:
        check_device_name(device)
    except ValueError as error:
        explanation = f"device: {error}"
        raise UserError(explanation) from error
    _check_torch_build(device)
    _check_places(source, Artifact(output))
    if is_written(output, force=force, restart=restart):
        check_output(output)
    check_pipeline(source)
    family = find_family(source)  # an unknown class is the first thing to say
    check_scheduler_class(source, family)
    _require_original(source, family)
    check_weight_formats(source)
    check_component_names(source, family, recipe.quantize)
    selected = family.list_quantized(recipe.quantize.components)
    require_tuned_component(recipe.quantize, any(name in selected for name in family.denoisers))
    if recipe.quantize.budget is not None:
        with checking_key("quantize.budget", recipe.quantize.budget):
            _check_budget(source, family, recipe.quantize.budget)
    check_reuse(recipe.quantize, reuse, source, family)
    if not is_described(family.pipeline_class):
        logger.warning(
            "edgepress has no description of %s: its layers are chosen by general rules, and no scales are folded. "
            "'edgepress info' lists the layers.",
            family.pipeline_class,
        )
    sampling = resolve_sampling(recipe.calibration, source)
    with checking_key("calibration.size", recipe.calibration.size):
        check_images(source, sampling.height, sampling.width)
    with checking_key("calibration.prompts", recipe.calibration.prompts):
        prompts = _load_calibration_prompts(recipe.calibration, source)
    _check_later_stages(recipe, source)
    with checking_key("loras", recipe.loras):
        loras = parse_loras(recipe.loras)
        for lora in loras:
            check_lora_header(lora.file)
            check_lora_layers(lora.file, source, family)
    inputs = QuantizationInputs(recipe, source, family, prompts, sampling, loras, reuse, device)
    if not force:
        _check_published(inputs, Artifact(output))
    return inputs


def _check_torch_build(device: str) -> None:
    """Raises UserError where a GPU is asked of a build of PyTorch whose version says that it has no CUDA."""
    build = version("torch")
    if device.startswith("cuda") and build.endswith("+cpu"):
        raise UserError(
            f"PyTorch {build} is built without CUDA, so it cannot compute on {device}. Install a build with CUDA, or "
            "compute on the processor with 'edgepress quantize --device cpu'."
        )


def _require_original(source: Path, family: Family) -> None:
    """Raises UserError where the weights of a component are quantized already."""
    for folder in find_weight_folders(source):
        config = read_json_object(folder / "config.json")
        if family.component(folder.name) is not None and is_awq(config):
            Checkpoint(folder).require_supported(config)


def is_written(output: Path, *, force: bool, restart: bool) -> bool:
    """Whether an artifact is certainly written; otherwise it may be up to date."""
    return force or restart or not Artifact(output).has_model


def describe_quantization(settings: QuantizationSettings) -> dict[str, Any]:
    """Returns what the result depends on of the section `quantize`: the steps, however they are given."""
    return settings.model_dump(mode="json", exclude={"method"}) | {"steps": list(settings.resolved_steps)}


def check_component_names(source: Path, family: Family, settings: QuantizationSettings) -> None:
    """Raises UserError where a recipe names a component that the pipeline does not have."""
    index = read_json_object(source / MODEL_INDEX)
    names = [part.name for part in family.components if index.get(part.name) != [None, None]]  # such as a left out T5
    for name in settings.components or ():
        if name not in names:
            problem = f"{family.pipeline_class} has no component {name!r}. Choose from: {', '.join(names)}."
            raise RecipeValueError("quantize.components", settings.components, problem)


def require_tuned_component(settings: QuantizationSettings, has_denoiser: bool) -> None:
    """Raises UserError where a recipe gives minutes for tuning, and no denoiser is quantized."""
    if settings.tune not in ("off", "auto") and not has_denoiser:
        raise UserError(
            f"quantize.tune is {settings.tune}, but no denoiser is quantized, so that there is nothing to tune. "
            "Set it to off."
        )


def _check_budget(source: Path, family: Family, text: str) -> None:
    """Raises UserError where a budget is less than any distribution takes, whatever the layers are."""
    budget = parse_budget(text)
    if budget.bits_per_weight is not None and budget.bits_per_weight < MIN_BITS_PER_WEIGHT:
        raise UserError(
            f"{budget.bits_per_weight:g} bits per weight are too few: the smallest format takes "
            f"{MIN_BITS_PER_WEIGHT:.4g}, and more in narrow layers. Give at least that."
        )
    for name in family.denoisers:  # whose weights are all used, each in 4 bits or more
        headers = read_loaded_headers(select_weight_files(source / name))
        smallest = sum(header.numel for header in headers) * MIN_BITS // 8
        if budget.size is not None and budget.size < smallest:
            raise UserError(
                f"{budget.size / 1e9:.4g} GB is too small: in {MIN_BITS} bits, the {name} alone takes "
                f"{smallest / 1e9:.4g} GB. Give more."
            )


def _check_places(source: Path, artifact: Artifact) -> None:
    """Raises UserError where publishing would delete what edgepress did not make, also with --force."""
    if is_within(artifact.path, source):
        raise UserError(
            f"The output folder {artifact.path} is inside the model folder {source}. Choose another --output."
        )
    if is_within(source, artifact.model):
        raise UserError(
            f"The model folder {source} is in the place of the result, {artifact.model}. Choose another --output."
        )
    unpublished = [folder / artifact.manifest.name for folder in find_workspaces(artifact)]
    for path in (artifact.model, artifact.manifest):
        check_replaceable(path, [artifact.manifest, *unpublished])
    check_own_files(artifact)


def _check_later_stages(recipe: Recipe, source: Path) -> None:
    """Checks what the recipe asks of later stages, so that it is not found out after the whole work.

    Raises:
        UserError: An image size is impossible, or the prompt set for the evaluation cannot be read.
    """
    family, configs = find_family(source), read_configs(source)
    if is_described(family.pipeline_class):
        check_later_sizes(recipe, family, configs)
    with checking_key("evaluation.prompts", recipe.evaluation.prompts):
        load_prompt_set(resolve_prompt_set(source, recipe.evaluation.prompts, "evaluation"))


def _load_calibration_prompts(settings: GenerationSettings, source: Path) -> list[Prompt]:
    prompt_set = resolve_prompt_set(source, settings.prompts, "calibration")
    prompts = load_prompt_set(prompt_set)
    if "count" in settings.model_fields_set:
        warn_if_fewer(prompts, settings.count, prompt_set, "calibration.count")
    return prompts[: max(settings.count, MAX_TEXT_PROMPTS)]


def _check_published(inputs: QuantizationInputs, artifact: Artifact) -> None:
    """Raises UserError where a published artifact was certainly made from other inputs, which needs no file's hash."""
    manifest = read_manifest(artifact.path)
    workspaces = find_workspaces(artifact)
    is_publishing = any((folder / artifact.manifest.name).exists() for folder in workspaces)  # that was to replace it
    if manifest is None or is_publishing or not artifact.model.exists():
        return
    quantize = validate_settings(QuantizationSettings, manifest.recipe.get("quantize", {}))
    if (
        manifest.prompts_sha256 != prompt_set_digest(inputs.prompts)
        or manifest.loras != [lora.record() for lora in inputs.loras]
        or manifest.versions != library_versions()
        or (inputs.device != "auto" and (inputs.device == "cpu") != (manifest.gpu is None))
        or describe_quantization(quantize) != describe_quantization(inputs.recipe.quantize)
    ):
        raise UserError(explain_other_inputs(artifact.model))
