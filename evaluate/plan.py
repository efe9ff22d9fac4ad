"""Settles what an evaluation compares: both sides, prompts, sampling and limits, from a recipe and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..common.errors import UserError
from ..models.base.host import load_host
from ..models.registry import get_family
from ..pipelines.hub import bundled_clip, resolve_pipeline
from ..pipelines.sampling import SamplingParams, resolve_dtype, resolve_sampling
from ..prompts import sets
from ..prompts.prompt import Prompt
from ..prompts.sets import resolve_prompt_set
from ..recipes.schema import EvaluationSettings, Recipe
from ..runtime.onnx import exported as manifest
from ..runtime.rknn import exported as parts
from ..storage.manifest import read_manifest
from .generation.candidates import ImageSource, detect_image_source, parse_candidates
from .images.image_file import get_image_stem, list_images
from .metrics.base import MetricSettings
from .results.schema import PromptSubset

ARTIFACTS_DIR = Path("artifacts")
IMAGE_CACHE_DIR = ARTIFACTS_DIR / ".work" / "pictures"  # shared by all devices, whose references are often the same
MAX_LISTED_NAMES = 3  # names that a sentence shows


@dataclass(frozen=True)
class EvaluationOptions:
    """What a caller wants otherwise than the recipe; nothing given leaves it to the recipe."""

    model: str | None = None
    candidates: tuple[str, ...] = ()
    prompts: str | None = None
    limit: int | None = None
    seeds: int = 1
    ground_truth: Path | None = None
    clip: str | None = None
    lpips: str | None = None
    metrics: tuple[str, ...] = ()
    baseline: Path | None = None
    history: Path | None = None
    gates: bool = True
    noise_floor: bool | None = None
    output: Path | None = None
    resume: bool = True


@dataclass(frozen=True)
class EvaluationPlan:
    """A reference, the candidates by name, and what all have to paint; seeds are 0 ... seeds - 1.

    sampling: None where all pictures were made elsewhere. dtype: of diffusers pipelines. asked: the prompt set's name.
    limited: how much of it is left out, if any is.
    metrics: those to measure, all where there are none. gates: limits as the recipe has them. resume: whether pictures
    and readings of earlier runs are used.
    """

    reference: ImageSource
    candidates: Mapping[str, ImageSource]
    prompts: tuple[Prompt, ...]
    sampling: SamplingParams | None
    dtype: str
    output: Path
    seeds: int = 1
    prompt_set: str | None = None
    prompt_subset: PromptSubset | None = None
    ground_truth: Path | None = None
    metric_settings: MetricSettings = field(default_factory=MetricSettings)
    metrics: tuple[str, ...] = ()
    gates: Mapping[str, float | str] = field(default_factory=dict)
    strict: bool = False
    noise_floor: bool = False
    baseline: Path | None = None
    history: Path | None = None
    device: str = "custom"
    resume: bool = True
    image_cache: Path = IMAGE_CACHE_DIR

    @property
    def score_cache(self) -> Path:
        """Where readings are kept, beside the cache of pictures."""
        return self.image_cache.with_name("readings.sqlite")


def plan_evaluation(recipe: Recipe, options: EvaluationOptions = EvaluationOptions()) -> EvaluationPlan:
    """The plan of a recipe and of what is wanted otherwise.

    Raises:
        UserError: there is no such reference, candidate, prompt file or folder of true pictures, or a side that cannot
            paint the wanted size.
    """
    explicit_reference = _resolve_reference(options.model) if options.model else None
    candidates = parse_candidates(options.candidates or (str(ARTIFACTS_DIR / recipe.device / "model"),))
    first = next(iter(candidates.values()))
    reference = explicit_reference or _resolve_reference(_find_original(first) or recipe.model)
    prompt_set = resolve_prompt_set(reference.folder, options.prompts or recipe.evaluation.prompts, "evaluation")
    all_prompts = sets.load_prompt_set(prompt_set)
    sources = (reference, *candidates.values())
    _require_known_images(sources, all_prompts, options.seeds, str(prompt_set))
    prompts, prompt_subset = _select_prompts(
        all_prompts, options, None if _are_all_images(sources) else recipe.evaluation.count
    )
    sampling = _resolve_sampling(recipe.evaluation, sources)
    _require_size(sampling, sources)
    plan = EvaluationPlan(
        reference=reference,
        candidates=candidates,
        prompts=prompts,
        prompt_subset=prompt_subset,
        sampling=sampling,
        dtype=_resolve_dtype(recipe.dtype, sources),
        output=options.output or first.folder.parent / "evaluation",
        seeds=options.seeds,
        prompt_set=str(prompt_set),
    )
    return _with_scoring(plan, recipe, options)


def plan_image_pairs(
    recipe: Recipe, reference: Path, variant: Path, options: EvaluationOptions = EvaluationOptions()
) -> EvaluationPlan:
    """Pictures made elsewhere, in two folders, paired by their names without suffixes.

    With a prompt set a picture is named by its prompt's id; without, only the two pictures are compared.

    Raises:
        UserError: a folder without pictures, or pictures that the prompt set does not know.
    """
    sources = [_require_image_folder(folder) for folder in (reference, variant)]
    stems = sorted({stem for side in sources for stem in list_images(side.folder)})
    prompt_set = resolve_prompt_set(reference, options.prompts, "evaluation") if options.prompts else None
    prompts = sets.load_prompt_set(prompt_set) if prompt_set else [_make_blank_prompt(stem) for stem in stems]
    _require_known_images(sources, prompts, 1, options.prompts or "")
    selected, prompt_subset = _select_prompts(prompts, options, None)
    plan = EvaluationPlan(
        reference=sources[0],
        candidates={variant.resolve().name: sources[1]},
        prompts=selected,
        prompt_subset=prompt_subset,
        sampling=None,
        dtype="float32",
        output=options.output or Path("evaluation"),
        prompt_set=str(prompt_set) if prompt_set else None,
    )
    return _with_scoring(plan, recipe, options)


def _with_scoring(plan: EvaluationPlan, recipe: Recipe, options: EvaluationOptions) -> EvaluationPlan:
    """The plan with what is measured and what is held against it."""
    settings = recipe.evaluation
    clip = options.clip or (bundled_clip(plan.reference.folder) if settings.clip == "own" else settings.clip)
    noise_floor = settings.noise_floor if options.noise_floor is None else options.noise_floor
    if options.ground_truth and not (options.ground_truth.is_dir() and list_images(options.ground_truth)):
        raise UserError(
            f"There are no true pictures in {options.ground_truth}; --truth wants a folder with <prompt id>.png."
        )
    return replace(
        plan,
        truth=options.ground_truth,
        settings=MetricSettings(clip=clip, lpips=options.lpips),
        metrics=options.metrics,
        gates=settings.gates if options.gates else {},
        strict=settings.strict,
        noise_floor=noise_floor and plan.reference.kind != "images",
        baseline=options.baseline,
        history=options.history,
        device=recipe.device,
        resume=options.resume,
    )


def _resolve_reference(model: str) -> ImageSource:
    """A pipeline by name, or a folder of any kind."""
    if model != "demo" and Path(model).is_dir():
        return detect_image_source(Path(model))
    return ImageSource("diffusers", resolve_pipeline(model))


def _require_image_folder(folder: Path) -> ImageSource:
    if not folder.is_dir() or not list_images(folder):
        raise UserError(f"There are no pictures in {folder}; --pairs wants two folders of pictures.")
    return ImageSource("images", folder)


def _are_all_images(sources: Sequence[ImageSource]) -> bool:
    return all(side.kind == "images" for side in sources)


def _select_prompts(
    prompts: Sequence[Prompt], options: EvaluationOptions, count: int | None
) -> tuple[tuple[Prompt, ...], PromptSubset | None]:
    """The first prompts, as many as are wanted, and what is left out; count: the recipe's."""
    selected = tuple(prompts[: options.limit or count])
    by = "--limit" if options.limit else "evaluation.count"
    return selected, PromptSubset(total=len(prompts), limited_by=by) if len(selected) < len(prompts) else None


def _require_known_images(
    sources: Sequence[ImageSource], prompts: Sequence[Prompt], seeds: int, prompt_set: str
) -> None:
    """Refuses pictures made elsewhere that are no prompt's: they would be left out without a word."""
    known = {get_image_stem(prompt.id, seed, seeds) for prompt in prompts for seed in range(seeds)}
    for side in sources:
        unknown = sorted(set(list_images(side.folder)) - known) if side.kind == "images" else []
        if unknown:
            more = ", each with its seed: <id>-0 and so on" if seeds > 1 else ""
            raise UserError(
                f"{len(unknown)} pictures of {side.folder} are no prompt's of {prompt_set} ({', '.join(unknown[:MAX_LISTED_NAMES])}); "
                f"name them by prompt ids{more}, give the set that they are of as --prompts, or move them away."
            )


def _make_blank_prompt(stem: str) -> Prompt:
    return Prompt(id=stem, prompt="", language="en")


def _find_original(candidate: ImageSource) -> str | None:
    """The pipeline that a candidate was pressed from, if its manifest names one that is still there."""
    manifest = read_manifest(candidate.folder.parent)
    return manifest.source if manifest and Path(manifest.source).is_dir() else None


def _resolve_sampling(settings: EvaluationSettings, sources: tuple[ImageSource, ...]) -> SamplingParams | None:
    """How the sides paint that do; `native` is the first pipeline's size, or else that of the first graphs."""
    generating = [side for side in sources if side.kind != "images"]
    if not generating:
        return None
    pipelines = [side for side in generating if side.kind == "diffusers"]
    if pipelines or settings.size != "native":
        return resolve_sampling(settings, (pipelines or generating)[0].folder)
    height, width = _get_default_size(generating[0])
    return SamplingParams(height=height, width=width, steps=settings.steps, guidance=settings.guidance)


def _get_default_size(source: ImageSource) -> tuple[int, int]:
    """What graphs paint if they are not told otherwise, and parts always."""
    if source.kind == "rknn":
        return parts.load_exported_rknn(source.folder).image_size
    exported = manifest.load_exported_onnx(source.folder)
    return (load_host(get_family(exported.pipeline_class), exported.host_configs).native_resolution,) * 2


def _require_size(sampling: SamplingParams | None, sources: tuple[ImageSource, ...]) -> None:
    """Refuses what paints no picture of the wanted size, before others have painted theirs."""
    for side in sources:
        fixed = _list_fixed_sizes(side)
        if sampling and fixed and (sampling.height, sampling.width) not in fixed:
            there = ", ".join(f"{height}x{width}" for height, width in fixed)
            raise UserError(
                f"{side.folder} paints pictures of {there} alone, not of {sampling.height}x{sampling.width}; set "
                "evaluation.size to one that it paints, or export it anew."
            )


def _list_fixed_sizes(source: ImageSource) -> tuple[tuple[int, int], ...]:
    """Heights and widths of the pictures that graphs of fixed shapes paint; empty where any may be asked for."""
    if source.kind == "rknn":
        return (parts.load_exported_rknn(source.folder).image_size,)
    return manifest.load_exported_onnx(source.folder).image_sizes if source.kind == "onnx" else ()


def _resolve_dtype(requested: str, sources: tuple[ImageSource, ...]) -> str:
    pipelines = [side.folder for side in sources if side.kind == "diffusers"]
    return resolve_dtype(requested, pipelines[0]) if pipelines else "float32"
