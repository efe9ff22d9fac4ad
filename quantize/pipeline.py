"""Quantizes a pipeline: plan, calibrate, quantize block by block, write, publish."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..common.errors import UserError
from ..common.memory import DEFAULT_MAX_MEMORY
from ..common.progress import Progress, no_progress
from ..pipelines.families import find_family, is_described
from ..pipelines.lora_files import parse_lora
from ..pipelines.preflight import check_images, check_pipeline, read_configs
from ..pipelines.recipe_sizes import check_later_sizes
from ..pipelines.sampling import resolve_dtype, resolve_sampling
from ..pipelines.tokenizer_loading import check_tokenizers
from ..prompts.prompt import Prompt, prompt_set_digest
from ..prompts.sets import find_prompt_set, load_prompt_set, resolve_prompt_set, warn_if_fewer
from ..recipes.key_errors import checking_key
from ..recipes.loader import validate_settings
from ..recipes.schema import GenerationSettings, QuantizationSettings, Recipe
from ..storage.files import folder_bytes, hash_files, write_json
from ..storage.layout import Artifact
from ..storage.manifest import library_versions, read_manifest
from ..storage.own_files import check_own_files
from ..storage.preflight import check_disk_space, check_output, check_replaceable, is_within
from ..storage.provenance import find_stale_exports
from ..storage.publishing import remove_folder
from ..storage.snapshot import FolderSnapshot
from ..storage.source_location import write_source_location
from ..storage.weight_files import find_stray_weights
from .component_reuse import find_reused
from .job import QuantizationJob, describe_quantization
from .lora import merge_into_plan
from .model_size import estimate_output_bytes
from .plan import QuantizationPlan, build_plan, check_finite_weights
from .result import QuantizeResult
from .stage_timer import StageTimer
from .tuning.stage import check_tuning
from .workspace import Workspace, WorkspaceState, explain_other_inputs, find_workspaces

logger = logging.getLogger(__name__)

# Quantizing a linear takes at least the process and about seven float32 matrices of its squared input width.
BASE_MEMORY = 2**30
BYTES_PER_SQUARED_WIDTH = 28
MAX_TEXT_PROMPTS = 128  # that components which only read the prompt are calibrated on


def quantize_pipeline(
    recipe: Recipe,
    source: Path,
    output: Path,
    *,
    force: bool = False,
    restart: bool = False,
    max_memory: int = DEFAULT_MAX_MEMORY,
    reuse: Sequence[Path] = (),
    progress: Progress = no_progress,
) -> QuantizeResult:
    """Quantizes a pipeline folder and publishes it as `output/model` with `output/manifest.json`.

    An interrupted run is resumed, with the same result to the byte. An artifact that is already up to date is returned
    as it is. Warnings are logged, for example where unfinished work of another recipe cannot be used.

    Args:
        recipe: Schemes, method, components and calibration.
        source: A diffusers folder in its original precision.
        output: The artifact folder. Created where it does not exist.
        force: Replace an artifact that was made from something else, and remove what was exported from it.
        restart: Use neither unfinished work nor a finished artifact; start over.
        max_memory: Bytes that the run may take.
        reuse: Artifacts whose text encoders are taken as they are, where their weights were the same.
        progress: Called with the stage, what is done of it, and the total.

    Raises:
        UserError: Invalid input, found before any long work; an artifact of other inputs without `force`; a full disk
            or missing permissions; another process that works on `output`.
    """
    _check_places(source, Artifact(output))
    timer = StageTimer(progress)
    writes = force or restart or not Artifact(output).has_model  # else the artifact may be up to date
    if writes:
        check_output(output)
    job = _prepare_job(recipe, source, max_memory)
    if not force:
        _check_published(job, Artifact(output))
    if writes:
        check_disk_space(output, estimate_output_bytes(job.plan, job.dtype) - folder_bytes(Artifact(output).work))
    snapshot = FolderSnapshot.take(source)
    check_finite_weights(source, job.dtype, timer)
    files = hash_files(source, timer, skip=find_stray_weights(source))
    job = replace(job, files=files, snapshot=snapshot, reused=find_reused(job.plan, files, reuse))
    workspace = Workspace.open(output, job.collect_inputs(), force=force, restart=restart)
    if workspace.state is WorkspaceState.DONE and workspace.published is not None:
        if workspace.folder.exists():  # left by a run that was interrupted right after publishing
            with workspace.lock():
                _finish(workspace, job, timer.seconds, remove_exports=force)
        return QuantizeResult(output, workspace.published, created=False)
    with workspace.lock():
        if workspace.state is WorkspaceState.NEW:
            workspace.reset()
        _warn_about_stale_work(workspace)
        _warn_about_memory(job.plan, max_memory)
        if not workspace.manifest_file.exists():
            job.run(workspace, timer)
            write_json(job.build_manifest(workspace).model_dump(mode="json"), workspace.manifest_file)
        workspace.publish()
        _finish(workspace, job, timer.seconds, remove_exports=force)
    manifest = read_manifest(output)
    assert manifest is not None
    return QuantizeResult(output, manifest, created=True, seconds=timer.seconds)


def _finish(workspace: Workspace, job: QuantizationJob, seconds: dict[str, float], *, remove_exports: bool) -> None:
    """Does what is left to do once a model is published, and removes the workspace last: it says that this is left."""
    _retire_stale_exports(workspace.artifact, remove=remove_exports)
    write_json(seconds, workspace.artifact.timings)
    loras = [parse_lora(text).location for text in job.recipe.loras]
    write_source_location(job.plan.source, workspace.artifact, loras)
    workspace.clear()


def _retire_stale_exports(artifact: Artifact, remove: bool) -> None:
    """Removes exports of a model that was replaced, or says that they cannot be used any more."""
    for folder in find_stale_exports(artifact):
        again = f"Run 'edgepress export {folder.name}' again."
        if remove:
            remove_folder(folder)
            logger.warning("Removed %s, which was exported from the model that was replaced. %s", folder, again)
        else:
            logger.warning("%s was exported from another model and is refused from now on. %s", folder, again)


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


def _prepare_job(recipe: Recipe, source: Path, max_memory: int) -> QuantizationJob:
    """Checks everything that can be known from configs and headers; no weight is read."""
    check_pipeline(source)
    pipeline_class = find_family(source).pipeline_class  # an unknown class is the first thing to say
    if not is_described(pipeline_class):
        logger.warning(
            "edgepress has no description of %s: its layers are chosen by general rules, and no scales are folded. "
            "'edgepress info' lists the layers.",
            pipeline_class,
        )
    sampling = resolve_sampling(recipe.calibration, source)
    with checking_key("calibration.size", recipe.calibration.size):
        check_images(source, sampling.height, sampling.width)
    with checking_key("calibration.prompts", recipe.calibration.prompts):
        prompts = _load_calibration_prompts(recipe.calibration, source)
    _check_later_stages(recipe, source)
    if is_described(pipeline_class):
        check_tokenizers(source)
    with checking_key("loras", recipe.loras):
        loras = [parse_lora(text) for text in recipe.loras]
    plan = merge_into_plan(loras, build_plan(source, recipe.quantize))
    check_tuning(plan)
    dtype: torch.dtype = getattr(torch, resolve_dtype(recipe.dtype, source))
    records = [lora.record() for lora in loras]
    job = QuantizationJob(recipe, plan, prompts, sampling, dtype, max_memory, records)
    if recipe.quantize.budget is not None:
        with checking_key("quantize.budget", recipe.quantize.budget):
            job.limit_linears()
    return job


def _check_later_stages(recipe: Recipe, source: Path) -> None:
    """Checks what the recipe asks of later stages, so that it is not found out after the whole work.

    Raises:
        UserError: An image size is impossible, or the prompt set for the evaluation does not exist.
    """
    family, configs = find_family(source), read_configs(source)
    if is_described(family.pipeline_class):
        check_later_sizes(recipe, family, configs)
    with checking_key("evaluation.prompts", recipe.evaluation.prompts):
        find_prompt_set(resolve_prompt_set(source, recipe.evaluation.prompts, "evaluation"))


def _check_published(job: QuantizationJob, artifact: Artifact) -> None:
    """Raises UserError where a published artifact was certainly made from other inputs, which needs no file's hash."""
    manifest = read_manifest(artifact.path)
    workspaces = find_workspaces(artifact)
    is_publishing = any((folder / artifact.manifest.name).exists() for folder in workspaces)  # that was to replace it
    if manifest is None or is_publishing or not artifact.model.exists():
        return
    quantize = validate_settings(QuantizationSettings, manifest.recipe.get("quantize", {}))
    if (
        manifest.prompts_sha256 != prompt_set_digest(job.prompts)
        or manifest.loras != list(job.loras)
        or manifest.versions != library_versions()
        or describe_quantization(quantize) != describe_quantization(job.recipe.quantize)
    ):
        raise UserError(explain_other_inputs(artifact.model))


def _load_calibration_prompts(settings: GenerationSettings, source: Path) -> list[Prompt]:
    prompt_set = resolve_prompt_set(source, settings.prompts, "calibration")
    prompts = load_prompt_set(prompt_set)
    if "count" in settings.model_fields_set:
        warn_if_fewer(prompts, settings.count, prompt_set, "calibration.count")
    return prompts[: max(settings.count, MAX_TEXT_PROMPTS)]


def _warn_about_stale_work(workspace: Workspace) -> None:
    for folder, changed in workspace.find_stale().items():
        logger.warning(
            "Unfinished work in %s cannot be resumed, because these inputs have changed: %s. It is deleted when this "
            "run finishes.",
            folder,
            ", ".join(changed),
        )


def _warn_about_memory(plan: QuantizationPlan, max_memory: int) -> None:
    """Logs a warning where the widest input needs more memory than the run may take."""
    widths = [
        component.checkpoint.shape(f"{linear}.weight")[1]
        for component in plan.components
        for block in component.blocks
        for linear in block.linears
    ]
    widest = max(widths, default=0)
    needed = BASE_MEMORY + BYTES_PER_SQUARED_WIDTH * widest**2
    if needed > max_memory:
        logger.warning(
            "Quantizing inputs of width %d takes about %.1f GiB, more than the limit of %.3g GiB (--max-memory).",
            widest,
            needed / 2**30,
            max_memory / 2**30,
        )
