"""Quantize, export and evaluate with one call each, from a recipe's name and a model's name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ..common.arguments import MAY_BE_ADDRESS, Seconds, check_arguments
from ..common.errors import UserError
from ..common.memory import DEFAULT_MAX_MEMORY
from ..common.progress import Progress, no_progress
from ..common.requirements import requires_extra
from ..pipelines.hub import resolve_pipeline, resolve_source
from ..pipelines.model_size import adapt_recipe
from ..recipes.execution import DEFAULT_RUNTIME
from ..recipes.key_errors import naming_recipe
from ..recipes.presets import DEFAULT_PRESETS, Side
from ..recipes.schema import NumTokens, Opset, Recipe, TuneMinutes
from ..storage.layout import Artifact
from .planning import IGNORE_ADVICE, require_fit, require_fit_unless_forced, require_format
from .recipe_stages import check_recipe
from .recipes import load_checked, open_model, override, override_export, override_rknn

if TYPE_CHECKING:
    from ..evaluate.plan import EvaluationOptions, EvaluationPlan
    from ..evaluate.results.schema import Results
    from ..export.onnx.exporter import ExportResult
    from ..export.rknn.exporter import RknnExportResult
    from ..export.rknn.planning.memory_plan import MemoryPlan
    from ..quantize.result import QuantizeResult

logger = logging.getLogger(__name__)

Candidate = Annotated[str | Path, MAY_BE_ADDRESS]
Candidates = Candidate | Sequence[Candidate] | Mapping[str, Candidate]
"""A folder, several folders, or folders by name."""


@check_arguments
@requires_extra("quantize")
def quantize(
    recipe: Recipe | str | Path,
    *,
    model: str | Path | None = None,
    output: str | Path | None = None,
    method: str | None = None,
    tune: Literal["off", "auto"] | TuneMinutes | None = None,
    budget: str | None = None,
    loras: str | Path | Sequence[str | Path] = (),
    reuse: str | Path | Sequence[str | Path] = (),
    max_memory: Annotated[int, Field(ge=1)] = DEFAULT_MAX_MEMORY,
    device: str = "cpu",
    force: bool = False,
    ignore_plan: bool = False,
    restart: bool = False,
    ray: str | None = None,
    progress: Progress = no_progress,
) -> QuantizeResult:
    """Quantizes a pipeline to 4 bits. Interrupted work resumes when the same call is made again.

    Args:
        recipe: A shipped recipe's name such as `orin`, a YAML file, or a recipe.
        model: A diffusers folder, a hub id, or `demo`; default: the recipe's.
        output: The artifact's folder; default: `artifacts/<device>`.
        method: `rtn`, `awq`, `gptq` or `best`, instead of the recipe's method or steps.
        tune: `off`, `auto` or minutes, instead of the recipe's: whether to train what stays in floating point.
        budget: `4.5bpw` or `3.6GB`, instead of the recipe's: mixed precision by what each layer's error does.
        loras: LoRA or LoRAs to merge into the weights first, as `PATH` or `PATH:WEIGHT`, instead of the recipe's.
        reuse: Artifact or artifacts whose text encoders are taken as they are, where their weights were the same.
        max_memory: Bytes that the run may use.
        device: Where PyTorch computes: `cpu`, `cuda`, `cuda:N`, or `auto` for a GPU if there is one. No GPU has been
            verified.
        force: Replace an artifact that was made from something else, and remove what was exported from it. In this
            release it ignores the plan too, with a warning.
        ignore_plan: Go on where the plan says that the device cannot run the result.
        restart: Start over instead of resuming interrupted work.
        ray: `HOST:PORT` of a Ray cluster whose machines take part, or `local` to start one on this machine.
        progress: Called with a stage, what is done and the total.

    Returns:
        The artifact, its manifest, and the seconds of each stage. `print` shows a summary.

    Raises:
        UserError: Bad input, an artifact of something else in the way, no space left, or a package that is missing.
    """
    loaded = load_checked(recipe)
    source = open_model(recipe, loaded, model, resolve_pipeline)
    resolved = override(adapt_recipe(loaded, source), model, method, loras, tune, budget)
    from ..quantize.pipeline import quantize_pipeline

    with naming_recipe(recipe, adapt_recipe(loaded, source)):
        return quantize_pipeline(
            resolved,
            source,
            _output_folder(output, resolved),
            force=force,
            restart=restart,
            max_memory=max_memory,
            device=device,
            reuse=[Path(folder) for folder in ([reuse] if isinstance(reuse, str | Path) else reuse)],
            check_later_stages=partial(_check_later_stages, resolved, source, force, ignore_plan),
            ray=ray,
            progress=progress,
        )


def _check_later_stages(recipe: Recipe, source: Path, force: bool, ignore_plan: bool) -> None:
    check_recipe(recipe, source)
    if not ignore_plan:
        require_fit_unless_forced(recipe, source, force)


@check_arguments
@requires_extra("export")
def export_onnx(
    recipe: Recipe | str | Path | None = None,
    *,
    model: str | Path | None = None,
    output: str | Path | None = None,
    precision: Literal["fp32", "fp16", "int4", "w8a8"] | None = None,
    format: Literal["ort", "qdq"] | None = None,  # noqa: A002
    activations: Literal["dynamic", "static"] | None = None,
    accuracy_level: Literal[0, 4] | None = None,
    float_dtype: Literal["fp32", "fp16"] | None = None,
    opset: Opset | None = None,
    shapes: Literal["dynamic", "fixed"] | None = None,
    max_prompt_tokens: NumTokens | None = None,
    extra_graphs: Sequence[str] | None = None,
    sizes: Sequence[tuple[Side, Side]] = (),
    verify: bool = True,
    ignore_plan: bool = False,
    progress: Progress = no_progress,
) -> ExportResult:
    """Exports a pipeline to ONNX graphs, in `output/onnx`. Settings that are None are the recipe's.

    Args:
        recipe: As for `quantize`; None if `output` is given.
        model: A diffusers folder, an artifact, a hub id, or `demo`; default: the artifact in `output`.
        output: The artifact's folder; default: `artifacts/<device>`.
        precision: Precision of the graphs: `int4` takes the weights of a quantized model, `w8a8` an INT8 solution.
        format: `ort` uses ONNX Runtime's operators, `qdq` standard ONNX with DequantizeLinear, as TensorRT needs.
        activations: For w8a8, `dynamic` scales per token or `static` scales from calibration.
        accuracy_level: For int4 in ONNX Runtime, 0 multiplies in floats and 4 in int8.
        float_dtype: For int4, the dtype of what is not quantized.
        opset: ONNX opset.
        shapes: `dynamic` axes, or `fixed` ones with one file per image size and prompt length.
        max_prompt_tokens: With fixed shapes, tokens of the longest prompt.
        extra_graphs: Optional graphs, such as `vae_encoder`.
        sizes: Heights and widths in pixels of the images to verify and, with fixed shapes, to export for.
        verify: Whether to compare the graphs with torch.
        ignore_plan: Go on where the plan says that the device cannot run the result.
        progress: Called with a stage, what is done and the total.

    Returns:
        The published folder, and how far the graphs are from torch. `print` shows both.

    Raises:
        UserError: Bad input, graphs that are too far from torch, or a package that is missing.
    """
    if recipe is None and output is None:
        raise UserError("Give --recipe or --output: the artifact to export.")
    resolved = load_checked(recipe) if recipe is not None else None
    target = _output_folder(output, resolved)
    source = resolve_source(model) if model is not None else target
    resolved = adapt_recipe(resolved, source) if resolved else None
    section = resolved.export if resolved else None
    check_fit: Callable[[], object] | None = None
    if resolved and not ignore_plan:
        changes = {"precision": precision, "format": format, "float_dtype": float_dtype}
        planned = override_export(resolved, changes)
        require_format(planned, planned.export, IGNORE_ADVICE)
        check_fit = partial(require_fit, planned, source, IGNORE_ADVICE)
    from ..export.onnx.exporter import export_onnx as export

    with naming_recipe(recipe, resolved):
        return export(
            source,
            target,
            section,
            precision=precision,
            format=format,
            activations=activations,
            accuracy_level=accuracy_level,
            float_dtype=float_dtype,
            opset=opset,
            shapes=shapes,
            max_prompt_tokens=max_prompt_tokens,
            extra_graphs=extra_graphs,
            sizes=sizes,
            presets=resolved.presets if resolved else DEFAULT_PRESETS,
            runtime=resolved.runtime if resolved else DEFAULT_RUNTIME,
            verify=verify,
            check_fit=check_fit,
            progress=progress,
        )


@check_arguments
@requires_extra("export")
def export_rknn(
    recipe: Recipe | str | Path,
    *,
    model: str | Path | None = None,
    output: str | Path | None = None,
    components: Sequence[str] = (),
    precision: str | None = None,
    timeout_s: Seconds = 3600,
    progress: Progress = no_progress,
) -> RknnExportResult:
    """Exports a pipeline to parts for the NPU of a Rockchip board, in `output/rknn`, built and simulated.

    Args:
        recipe: As for `quantize`; it must have a section `rknn`.
        model: A diffusers folder, an artifact, a hub id, or `demo`; default: the recipe's.
        output: The artifact's folder; default: `artifacts/<device>`.
        components: Components to export; empty: all.
        precision: `fp16`, `w8a8`, `w4a16` or `auto`, instead of the recipe's.
        timeout_s: Seconds that the toolkit may take for one part.
        progress: Called with a stage, what is done and the total.

    Returns:
        The published folder, its parts, and how close they are to floats. `print` shows them.

    Raises:
        UserError: Bad input, no toolkit, a board that cannot hold the parts, a part that is too far from its reference,
            or a package that is missing.
    """
    loaded = load_checked(recipe)
    source = open_model(recipe, loaded, model, resolve_source)
    resolved = override_rknn(adapt_recipe(loaded, source), precision)
    target = _output_folder(output, resolved)
    from ..export.rknn.exporter import export_rknn as export

    with naming_recipe(recipe, resolved):
        return export(source, target, resolved, components=components, progress=progress, timeout_s=timeout_s)


@check_arguments
@requires_extra("export")
def plan_rknn(
    recipe: Recipe | str | Path, *, model: str | Path | None = None, precision: str | None = None
) -> MemoryPlan:
    """Plans an export to an NPU from configs alone: its parts, their memory, and whether the board can hold them.

    Args:
        recipe: As for `export_rknn`.
        model: A diffusers folder, an artifact, a hub id, or `demo`; default: the recipe's.
        precision: `fp16`, `w8a8`, `w4a16` or `auto`, instead of the recipe's.

    Returns:
        The plan. `print` shows it as a report.

    Raises:
        UserError: Bad input, or a package that is missing.
    """
    loaded = load_checked(recipe)
    source = open_model(recipe, loaded, model, resolve_source)
    resolved = override_rknn(adapt_recipe(loaded, source), precision)
    from ..export.rknn.planning.estimator import plan_rknn as plan

    with naming_recipe(recipe, resolved):
        return plan(source, resolved)


@check_arguments
@requires_extra("evaluate")
def evaluate(
    recipe: Recipe | str | Path | None = None,
    *,
    model: str | Path | None = None,
    candidates: Candidates = (),
    pairs: tuple[str | Path, str | Path] | None = None,
    prompts: str | Path | None = None,
    limit: Annotated[int, Field(ge=1)] | None = None,
    seeds: Annotated[int, Field(ge=1)] = 1,
    ground_truth: str | Path | None = None,
    clip: str | None = None,
    lpips: str | Path | None = None,
    metrics: str | Sequence[str] = (),
    baseline: str | Path | None = None,
    history: str | Path | None = None,
    gates: bool = True,
    noise_floor: bool | None = None,
    output: str | Path | None = None,
    restart: bool = False,
    ray: str | None = None,
    progress: Progress = no_progress,
) -> Results:
    """Compares candidates with their reference on the same prompts and noise, and writes results and reports.

    Images and scores are cached in `artifacts/.work`: interrupted work resumes when the same call is made again.
    Images that could not be compared, and gates that could not be measured, are logged as warnings.

    Args:
        recipe: As for `quantize`: what is compared, how, and the gates; None if `model` and `candidates`, or `pairs`,
            are given.
        model: The reference: a pipeline, an export, a folder of images, or `demo`; default: what the first candidate
            was quantized from, or else the recipe's model.
        candidates: Quantized pipelines, exports, artifacts or folders of images, as one folder, several, or folders by
            name; `@float32` or `@bfloat16` may follow a folder. Default: the recipe's artifact.
        pairs: Two folders of images to compare by name, instead of `model` and `candidates`.
        prompts: Prompt set, by name or file; default: the recipe's.
        limit: Number of prompts to use, from the start of the set; default: the recipe's.
        seeds: Number of images per prompt.
        ground_truth: Folder of ground-truth images named by prompt id, which all images are compared with as well.
        clip: CLIP weights for CLIP-I and CLIP-T, such as `local-dir:FOLDER`; default: those of the pipeline, if any.
        lpips: Folder of the weights for LPIPS.
        metrics: Names of the metrics to compute; default: all that are available.
        baseline: An earlier results.json, to report changes against.
        history: SQLite file to add the scores to.
        gates: Whether to check the recipe's gates.
        noise_floor: Whether to run the reference twice; default: the recipe's.
        output: Folder of the latest results, and of a folder for those of every plan; default: `evaluation` next to the
            first candidate.
        restart: Whether to generate all images and compute all scores again.
        ray: As for `quantize`.
        progress: Called with a stage, what is done and the total.

    Returns:
        What results.json holds: every score, the means with intervals, and the verdict of each gate. `print` shows a
        summary.

    Raises:
        UserError: Bad input, something that cannot be measured at all, or a package that is missing.
    """
    from ..evaluate.evaluator import describe_unmeasured

    plan = plan_evaluation(
        recipe,
        model=model,
        candidates=_candidate_specs(candidates),
        pairs=pairs,
        prompts=str(prompts) if prompts is not None else None,
        limit=limit,
        seeds=seeds,
        ground_truth=_optional_path(ground_truth),
        clip=clip,
        lpips=str(lpips) if lpips is not None else None,
        metrics=(metrics,) if isinstance(metrics, str) else tuple(metrics),
        baseline=_optional_path(baseline),
        history=_optional_path(history),
        gates=gates,
        noise_floor=noise_floor,
        output=output,
        restart=restart,
        ray=ray,
    )
    results = run_evaluation(plan, progress)
    for sentence in describe_unmeasured(results):
        logger.warning("%s", sentence)
    return results


@requires_extra("evaluate")
def plan_evaluation(
    recipe: Recipe | str | Path | None = None,
    *,
    model: str | Path | None = None,
    candidates: Sequence[str | Path] = (),
    pairs: tuple[str | Path, str | Path] | None = None,
    output: str | Path | None = None,
    **options: Any,
) -> EvaluationPlan:
    """Decides everything that an evaluation depends on, as `evaluate` does, and runs nothing.

    `options` are further fields of `edgepress.evaluate.plan.EvaluationOptions`.
    """
    from ..evaluate import plan as plans

    folder = Path(output) if output is not None else None
    names = tuple(map(str, candidates))
    chosen = plans.EvaluationOptions(
        model=str(model) if model is not None else None, candidates=names, output=folder, **options
    )
    resolved = Recipe(device="custom") if recipe is None else load_checked(recipe, chosen.gates)
    if pairs is not None:
        _require_no_pipelines(chosen)
        return plans.plan_image_pairs(resolved, Path(pairs[0]), Path(pairs[1]), chosen)
    if recipe is None and not (chosen.model and chosen.candidates):
        raise UserError("Nothing to compare. Give --recipe, or --model and --candidate, or --pairs.")
    with naming_recipe(recipe, resolved):
        return plans.plan_evaluation(resolved, chosen)


@requires_extra("evaluate")
def run_evaluation(plan: EvaluationPlan, progress: Progress = no_progress) -> Results:
    """Runs a planned evaluation, and writes results.json and the reports into the plan's output folder.

    The same files are written into a folder of that folder, which later runs of other plans do not touch.
    """
    from ..evaluate import evaluator

    return evaluator.run_evaluation(plan, progress, write_reports=True)


def _candidate_specs(candidates: Candidates) -> tuple[str, ...]:
    """Candidates as `[NAME=]DIR[@DTYPE]`."""
    if isinstance(candidates, Mapping):
        return tuple(f"{name}={folder}" for name, folder in candidates.items())
    return tuple(str(folder) for folder in ([candidates] if isinstance(candidates, str | Path) else candidates))


def _optional_path(path: str | Path | None) -> Path | None:
    return Path(path) if path is not None else None


def _require_no_pipelines(options: EvaluationOptions) -> None:
    if options.model or options.candidates or options.seeds > 1:
        raise UserError("--pairs names both folders, with one image each. Leave out --model, --candidate and --seeds.")


def _output_folder(output: str | Path | None, recipe: Recipe | None) -> Path:
    if output is not None:
        return Path(output)
    assert recipe is not None  # callers ask for one of the two
    return Artifact.of_device(recipe.device).path
