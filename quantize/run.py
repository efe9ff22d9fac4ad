"""One run of a quantization: plan, calibrate, quantize block by block, write, publish."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..common.errors import UserError
from ..common.executor import open_executor
from ..common.progress import Progress
from ..pipelines.families import is_described
from ..pipelines.lora_files import parse_lora
from ..pipelines.sampling import resolve_dtype
from ..pipelines.tokenizer_loading import check_processors, check_tokenizers
from ..recipes.key_errors import checking_key
from ..storage.files import folder_bytes, hash_files, write_json
from ..storage.layout import LOCAL, LOCAL_CHECKSUMS, TIMINGS, Artifact
from ..storage.manifest import read_manifest
from ..storage.preflight import check_disk_space
from ..storage.provenance import find_stale_exports
from ..storage.publishing import artifact_lock, remove_folder
from ..storage.result_checksums import record_results
from ..storage.snapshot import FolderSnapshot
from ..storage.source_location import write_source_location
from ..storage.weight_files import find_stray_files
from .component_reuse import find_reused
from .compute_device import explain_full_memory, resolve_device
from .device_memory import estimate_device_bytes, require_device_memory
from .job import QuantizationJob
from .lora import merge_into_plan
from .model_size import estimate_output_bytes, estimate_solver_memory, find_widest_input
from .plan import QuantizationPlan, build_plan, check_finite_weights
from .preflight import QuantizationInputs, is_written
from .result import QuantizeResult
from .stage_timer import StageTimer
from .tuning.stage import check_tuning
from .workspace import Workspace, WorkspaceState

logger = logging.getLogger(__name__)


def run_quantization(
    inputs: QuantizationInputs,
    output: Path,
    *,
    force: bool,
    restart: bool,
    max_memory: int,
    ray: str | None,
    progress: Progress,
) -> QuantizeResult:
    """Quantizes a pipeline whose inputs have been checked as far as that needs no torch, and publishes it.

    Args:
        inputs: The inputs.
        output: The artifact folder.
        force: Replace an artifact that was made from something else, and remove what was exported from it.
        restart: Use neither unfinished work nor a finished artifact; start over.
        max_memory: Bytes that the run may take.
        ray: The Ray cluster that it runs on, as `open_executor` takes it.
        progress: Called with the stage, what is done of it, and the total.

    Raises:
        UserError: See `quantize_pipeline`.
    """
    source, timer = inputs.source, StageTimer(progress)
    job = _prepare_job(inputs, max_memory)
    if is_written(output, force=force, restart=restart):
        check_disk_space(output, estimate_output_bytes(job.plan, job.dtype) - folder_bytes(Artifact(output).work))
    snapshot = FolderSnapshot.take(source)
    check_finite_weights(source, job.dtype, timer)
    files = hash_files(source, timer, skip=find_stray_files(source))
    job = replace(job, files=files, snapshot=snapshot, reused=find_reused(job.plan, files, inputs.reuse))
    workspace = Workspace.open(output, job.collect_inputs(), force=force, restart=restart)
    if workspace.state is WorkspaceState.DONE and workspace.published is not None:
        if workspace.folder.exists():  # left by a run that was interrupted right after publishing
            with workspace.lock():
                _finish(workspace, job, timer.seconds, remove_exports=force)
        elif workspace.artifact.work.exists():
            with suppress(UserError), artifact_lock(output):  # removes the lock that a run could not, unless it is held
                pass
        return QuantizeResult(output, workspace.published, created=False)
    with workspace.lock():
        if workspace.state is WorkspaceState.NEW:
            workspace.reset()
        _warn_about_stale_work(workspace)
        _warn_about_memory(job.plan, max_memory)
        if not workspace.manifest_file.exists():
            check_machine = partial(job.make_machine_check, workspace)
            with (
                explain_full_memory(job.device, lambda: timer.stage),
                open_executor(ray, check_machine, max_memory) as executor,
            ):
                job.run(workspace, timer, executor)
            write_json(job.build_manifest(workspace).model_dump(mode="json"), workspace.manifest_file)
        workspace.publish()
        _finish(workspace, job, timer.seconds, remove_exports=force)
    manifest = read_manifest(output)
    assert manifest is not None
    return QuantizeResult(output, manifest, created=True, seconds=timer.seconds)


def _finish(workspace: Workspace, job: QuantizationJob, seconds: dict[str, float], *, remove_exports: bool) -> None:
    """Does what is left to do once a model is published, and removes the workspace last: it says that this is left."""
    _retire_stale_exports(workspace.artifact, remove=remove_exports)
    loras = [parse_lora(text).location for text in job.recipe.loras]
    with record_results((TIMINGS, LOCAL), workspace.artifact.path, list_name=LOCAL_CHECKSUMS):
        write_json(seconds, workspace.artifact.timings)
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


def _prepare_job(inputs: QuantizationInputs, max_memory: int) -> QuantizationJob:
    """Checks what needs the classes of the pipeline's components; no weight is read."""
    recipe, source = inputs.recipe, inputs.source
    if is_described(inputs.family.pipeline_class):
        check_tokenizers(source)
    check_processors(source)
    plan = merge_into_plan(inputs.loras, build_plan(source, recipe.quantize))
    check_tuning(plan)
    dtype: torch.dtype = getattr(torch, resolve_dtype(recipe.dtype, source))
    records = [lora.record() for lora in inputs.loras]
    device = resolve_device(inputs.device)
    require_device_memory(device, estimate_device_bytes(plan, inputs.sampling, dtype))
    job = QuantizationJob(recipe, plan, inputs.prompts, inputs.sampling, dtype, max_memory, records, device=device)
    if recipe.quantize.budget is not None:
        with checking_key("quantize.budget", recipe.quantize.budget):
            job.limit_linears()
    return job


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
    widest, needed = find_widest_input(plan), estimate_solver_memory(plan)
    if needed > max_memory:
        logger.warning(
            "Quantizing inputs of width %d takes about %.1f GiB, more than the limit of %.3g GiB (--max-memory).",
            widest,
            needed / 2**30,
            max_memory / 2**30,
        )
