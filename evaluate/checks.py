"""Checks a plan before any work: what can be known from folders, headers and arithmetic, for all sources.

`check_plan` imports no torch; `check_components` compares weights with their classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..models.base.image_size import check_image_size
from ..models.registry import get_family, load_families
from ..pipelines.component_files import check_component_file
from ..pipelines.hub import read_pipeline_class
from ..pipelines.optimum_pipelines import require_optimum
from ..pipelines.preflight import check_images, check_pipeline, check_weight_headers
from ..pipelines.quantization_packages import check_quantization_packages
from ..pipelines.sampling import SamplingParams
from ..pipelines.scheduler_class import check_scheduler_class
from ..prompts.prompt import Prompt
from ..runtime.image_metadata import hash_prompt
from ..runtime.onnx.exported import load_exported_onnx
from ..storage.hash_memory import HashMemory
from ..storage.integrity import require_intact
from ..storage.preflight import check_results_folder, check_writable_folder, require_possible_path
from ..storage.provenance import MAKE_AGAIN, list_required_files, read_recorded_files
from .generation.candidates import ImageSource
from .generation.server import connect
from .images.image_file import get_image_stem
from .images.recorded_prompts import check_recorded_prompts, read_recorded_prompts
from .metrics.registry import check_metric_names
from .plan import EvaluationPlan
from .report.publishing import EVALUATION_FILES
from .results.history import init_history


def check_plan(plan: EvaluationPlan) -> None:
    """Checks everything that can be checked without the classes of pipelines.

    Raises:
        UserError: There is nothing to compare, a metric does not exist, a folder cannot be written to, the history is
            none or a file that the evaluation writes, or a source lacks files or cannot generate such images.
    """
    if not plan.prompts or plan.seeds < 1 or not plan.candidates:
        raise UserError("Nothing to compare. Give at least one prompt, one seed and one --candidate.")
    check_metric_names(plan.metrics)
    check_results_folder(plan.output)
    if plan.history:
        _check_history(plan.history, plan.output)
    check_writable_folder(plan.image_cache)
    for source in (plan.reference, *plan.candidates.values()):
        if plan.sampling and source.kind != "images":
            _check_source(source, plan.sampling, plan.prompts)
    _check_images(plan)


def check_recorded_files(plan: EvaluationPlan, progress: Progress = no_progress) -> None:
    """Compares the folders of artifacts with what was recorded when they were published, without torch.

    Files that did not change since they were read last are not read again.

    Args:
        plan: The plan.
        progress: Called with bytes.

    Raises:
        UserError: A file is missing or was changed.
    """
    sources = (plan.reference, *plan.candidates.values())
    with HashMemory() as hashes:
        for folder in dict.fromkeys(s.folder for s in sources if s.kind not in ("images", "server", "optimum")):
            files = list_required_files(folder, read_recorded_files(folder))
            require_intact(folder, files, MAKE_AGAIN, hashes, progress)


def check_components(plan: EvaluationPlan) -> None:
    """Checks the weights, schedulers and tokenizers of pipelines against their classes. Reads only headers.

    Raises:
        UserError: A class is unknown, or a component does not fit its class.
    """
    for source in (plan.reference, *plan.candidates.values()):
        if plan.sampling and source.kind == "diffusers":
            _check_components(source)


def _check_components(source: ImageSource) -> None:
    from ..pipelines.component_weights import check_family_weights, check_pipeline_weights
    from ..pipelines.config_keys import warn_about_unknown_keys
    from ..pipelines.required_packages import check_required_packages
    from ..pipelines.tokenizer_loading import check_processors, check_tokenizers

    check_required_packages(source.folder)
    check_processors(source.folder)
    check_pipeline_weights(source.folder)
    family = load_families().get(read_pipeline_class(source.folder))
    if family is not None:  # of others, no one knows which weights their libraries ignore or rename
        warn_about_unknown_keys(source.folder)
        check_tokenizers(source.folder)
        check_family_weights(source.folder, family)


def _check_images(plan: EvaluationPlan) -> None:
    """Checks that images which are given are those of their prompts; without prompts, those of the reference's."""
    expected = _hash_prompts(plan.prompts, plan.seeds)
    if not expected and plan.reference.kind == "images":
        expected = read_recorded_prompts(plan.reference.folder)
    for source in (plan.reference, *plan.candidates.values()):
        if source.kind == "images":
            check_recorded_prompts(source.folder, expected)
    if plan.ground_truth:
        check_recorded_prompts(plan.ground_truth, _hash_prompts(plan.prompts, 1))


def _hash_prompts(prompts: Sequence[Prompt], seeds: int) -> dict[str, str]:
    """The SHA-256 of every prompt that is not empty, by the stems of the files of its images."""
    return {
        get_image_stem(prompt.id, seed, seeds): hash_prompt(prompt.prompt)
        for prompt in prompts
        for seed in range(seeds)
        if prompt.prompt
    }


def _check_history(file: Path, output: Path) -> None:
    """Checks that a history can be written, that a file which is there is one, and that no results will replace it."""
    require_possible_path(file)
    folder = file.resolve().parent
    if file.name.lower() in EVALUATION_FILES and output.resolve() in (folder, folder.parent):
        raise UserError(f"{file} is a file that this evaluation writes. Pass another to --history: history.sqlite.")
    try:
        check_results_folder(file.parent)
    except UserError as error:
        raise UserError(f"The history {file} cannot be written: {error}") from error
    if file.exists():
        init_history(file)


def _check_source(source: ImageSource, sampling: SamplingParams, prompts: Sequence[Prompt]) -> None:
    """Checks that a source has all its files, and that it can generate images with the sampling parameters."""
    if source.kind == "server":
        server = connect(source.url)
        server.check(sampling)
        server.check_prompts(prompts)
        return
    if source.kind == "optimum":
        require_optimum(source.folder)
        return
    if source.kind == "diffusers":
        check_quantization_packages(source.folder)
        check_pipeline(source.folder)
        check_weight_headers(source.folder)
        family = load_families().get(read_pipeline_class(source.folder))
        if family is not None:
            check_scheduler_class(source.folder, family)
        check_images(source.folder, sampling.height, sampling.width)
        for replacement in source.files:
            check_component_file(source.folder, replacement)
        return
    if source.kind == "onnx":
        exported = load_exported_onnx(source.folder)
        check_image_size(get_family(exported.pipeline_class), exported.host_configs, sampling.height, sampling.width)
