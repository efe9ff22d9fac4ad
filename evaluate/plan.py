"""Decides what an evaluation compares and how: reference, candidates, prompts, sampling, metrics and gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from ..common.errors import UserError
from ..common.file_names import require_utf8
from ..models.base.host import load_host
from ..models.base.image_size import check_image_size
from ..models.registry import get_family, load_families
from ..pipelines.hub import bundled_clip, read_pipeline_class, resolve_pipeline
from ..pipelines.model_size import adapt_recipe
from ..pipelines.preflight import read_configs
from ..pipelines.sampling import SamplingParams, resolve_dtype, resolve_sampling
from ..prompts.prompt import Prompt
from ..prompts.sets import load_prompt_set, resolve_prompt_set, warn_if_fewer
from ..recipes.key_errors import checking_key
from ..recipes.schema import EvaluationSettings, Recipe
from ..runtime.malformed import reject_malformed
from ..runtime.onnx.exported import load_exported_onnx
from ..runtime.rknn.exported import load_exported_rknn
from ..storage.layout import ARTIFACTS, EVALUATION, WORK, Artifact
from ..storage.preflight import is_writable, require_possible_path
from ..storage.recognition import reject_path
from ..storage.source_location import find_source, find_source_loras
from .backends.clip.spec import parse_clip_spec
from .generation.candidates import ImageSource, detect_image_source, parse_candidates, read_origin
from .images.image_file import get_image_stem, list_images
from .metrics.base import MetricSettings
from .results.schema import PromptSubset

IMAGE_CACHE_DIR = ARTIFACTS / WORK / "images"  # shared by all devices, which often have the same reference
SCORE_CACHE_FILE = "scores.sqlite"
MAX_SEEDS = 1000  # images of a prompt: all are listed before the first is generated
CLIP_METRICS, LPIPS_METRICS = ("clip_i", "clip_t"), ("lpips",)  # that need weights of their own
MAX_LISTED_NAMES = 3  # in an error message


@dataclass(frozen=True)
class EvaluationOptions:
    """What differs from the recipe. The recipe decides where nothing is given.

    Attributes:
        model: Reference: a diffusers folder, a model id, `demo`, an export, or a folder of images.
        candidates: Candidates as `[NAME=]DIR[@DTYPE]`, `[NAME=]COMPONENT:FILE` or `[NAME=]URL`.
        prompts: Name or file of the prompt set.
        limit: Number of prompts to use, from the start of the set.
        seeds: Number of images per prompt.
        ground_truth: Folder of ground-truth images, which are named by prompt id.
        clip: CLIP weights for the CLIP metrics, such as `local-dir:FOLDER`.
        lpips: Folder of the LPIPS weights.
        metrics: Names of the metrics to compute; all available ones if empty.
        baseline: Results of an earlier run, to report changes against.
        history: SQLite file to add the scores to.
        gates: Whether to check the recipe's gates.
        noise_floor: Whether to generate the reference's images twice.
        output: Folder of the results.
        restart: Whether to generate all images and compute all scores again instead of using cached ones.
        ray: The Ray cluster that it runs on, as `open_executor` takes it.
    """

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
    restart: bool = False
    ray: str | None = None


@dataclass(frozen=True)
class EvaluationPlan:
    """Everything that an evaluation depends on. Folders whose names are not UTF-8 are refused with a UserError.

    Attributes:
        reference: The reference.
        candidates: The candidates by name.
        prompts: The prompts.
        sampling: How images are generated; None if all images exist already.
        dtype: Compute dtype of diffusers pipelines that have none of their own.
        output: Folder of the results.
        seeds: Number of images per prompt, with seeds 0 to `seeds` - 1.
        prompt_set: Name or file of the prompt set.
        prompt_subset: Which part of the prompt set is used; None: all of it.
        ground_truth: Folder of ground-truth images.
        metric_settings: Settings of the metrics.
        metrics: Names of the metrics to compute; all available ones if empty.
        gates: The recipe's gates.
        strict: Whether an inconclusive gate counts as failed.
        noise_floor: Whether to generate the reference's images twice.
        baseline: Results of an earlier run, to report changes against.
        history: SQLite file to add the scores to.
        device: The recipe's device.
        restart: Whether to generate all images and compute all scores again instead of using cached ones.
        image_cache: Folder of the image cache.
        ray: The Ray cluster that it runs on, as `open_executor` takes it.
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
    restart: bool = False
    image_cache: Path = IMAGE_CACHE_DIR
    ray: str | None = None

    def __post_init__(self) -> None:
        require_possible_path(self.output)
        sources = (self.reference, *self.candidates.values())
        for folder in (Path(), self.output, *(source.folder for source in sources)):
            require_utf8(str(folder.resolve()))  # results have full paths

    @property
    def score_cache(self) -> Path:
        """File of the score cache, next to the image cache."""
        return self.image_cache.with_name(SCORE_CACHE_FILE)


def plan_evaluation(recipe: Recipe, options: EvaluationOptions = EvaluationOptions()) -> EvaluationPlan:
    """Plans an evaluation of candidates against a reference.

    Without options, the quantized pipeline in `artifacts/<device>` is compared with the pipeline that it was quantized
    from.

    Raises:
        UserError: The reference, a candidate, the prompt set or the ground truth does not exist, external images do not
            match the prompts, or an export does not support the image size.
    """
    specs = options.candidates or (str(Artifact.of_device(recipe.device).model),)
    explicit_reference = _resolve_reference(options.model) if options.model else None
    candidates = parse_candidates(specs)
    first = next(iter(candidates.values()))
    original = None if explicit_reference else _find_original(first)
    with checking_key("model", original or recipe.model):
        reference = explicit_reference or _resolve_reference(original or recipe.model)
    candidates = {name: _complete(source, reference) for name, source in candidates.items()}
    if reference.kind == "diffusers":
        recipe = adapt_recipe(recipe, reference.folder)
        reference = replace(reference, loras=_find_loras(first, recipe))
    with checking_key("evaluation.prompts", options.prompts or recipe.evaluation.prompts):
        prompt_set = resolve_prompt_set(reference.folder, options.prompts or recipe.evaluation.prompts, "evaluation")
        all_prompts = load_prompt_set(prompt_set)
    if options.seeds > MAX_SEEDS:
        raise UserError(f"--seeds {options.seeds} are too many images of a prompt. Choose at most {MAX_SEEDS}.")
    sources = (reference, *candidates.values())
    _require_known_images(sources, all_prompts, options.seeds, str(prompt_set))
    settings = recipe.evaluation
    count = None if all(source.kind == "images" for source in sources) else settings.count
    prompts, prompt_subset = _select_prompts(all_prompts, options.limit, count)
    if options.limit or (count and "count" in settings.model_fields_set):
        warn_if_fewer(all_prompts, options.limit or settings.count, prompt_set, _get_limit_name(options.limit))
    sampling = _resolve_sampling(recipe.evaluation, sources)
    with checking_key("evaluation.size", settings.size):
        _require_size(sampling, sources)
        _require_possible_size(settings, sources)
    output = options.output or _choose_output(first)
    plan = EvaluationPlan(
        reference=reference,
        candidates=candidates,
        prompts=prompts,
        prompt_subset=prompt_subset,
        sampling=sampling,
        dtype=_resolve_dtype(recipe.dtype, sources),
        output=output,
        image_cache=_choose_image_cache(output),
        seeds=options.seeds,
        prompt_set=str(prompt_set),
    )
    return _with_scoring(plan, recipe, options)


def plan_image_pairs(
    recipe: Recipe, reference: Path, variant: Path, options: EvaluationOptions = EvaluationOptions()
) -> EvaluationPlan:
    """Plans a comparison of two folders of images, paired by file stem.

    With a prompt set, the stems are prompt ids. Without one, only metrics that need no prompt are computed.

    Raises:
        UserError: A folder contains no images, or images that match no prompt.
    """
    sources = [_require_image_folder(folder) for folder in (reference, variant)]
    stems = sorted({stem for source in sources for stem in list_images(source.folder)})
    prompt_set = resolve_prompt_set(reference, options.prompts, "evaluation") if options.prompts else None
    prompts = load_prompt_set(prompt_set) if prompt_set else [_make_blank_prompt(stem) for stem in stems]
    _require_known_images(sources, prompts, 1, options.prompts or "")
    selected, prompt_subset = _select_prompts(prompts, options.limit, None)
    if options.limit:
        warn_if_fewer(prompts, options.limit, options.prompts or reference, _get_limit_name(options.limit))
    output = options.output or Path(EVALUATION)
    plan = EvaluationPlan(
        reference=sources[0],
        candidates={variant.resolve().name: sources[1]},
        prompts=selected,
        prompt_subset=prompt_subset,
        sampling=None,
        dtype="float32",
        output=output,
        image_cache=_choose_image_cache(output),
        prompt_set=str(prompt_set) if prompt_set else None,
    )
    return _with_scoring(plan, recipe, options)


def _with_scoring(plan: EvaluationPlan, recipe: Recipe, options: EvaluationOptions) -> EvaluationPlan:
    """Adds metrics, gates, and what results are compared with."""
    settings = recipe.evaluation
    clip = options.clip or (bundled_clip(plan.reference.folder) if settings.clip == "auto" else settings.clip)
    noise_floor = settings.noise_floor if options.noise_floor is None else options.noise_floor
    if options.noise_floor and plan.reference.kind == "images":
        raise UserError(
            f"--noise-floor generates the reference's images twice, but {plan.reference.folder} holds images. Leave it "
            "out, or give a pipeline with --model."
        )
    _require_used_weights(options)
    if clip and not options.clip:
        with checking_key("evaluation.clip", settings.clip):
            parse_clip_spec(clip)
    if options.ground_truth:
        _require_images(options.ground_truth, "Give --ground-truth a folder with <prompt id>.png")
    return replace(
        plan,
        ground_truth=options.ground_truth,
        metric_settings=MetricSettings(clip=clip, lpips=options.lpips),
        metrics=options.metrics,
        gates=settings.gates if options.gates else {},
        strict=settings.strict,
        noise_floor=noise_floor and plan.reference.kind != "images",
        baseline=options.baseline,
        history=options.history,
        device=recipe.device,
        restart=options.restart,
        ray=options.ray,
    )


def _require_used_weights(options: EvaluationOptions) -> None:
    """Refuses weights for a metric that is not computed."""
    for option, value, metrics in (("--clip", options.clip, CLIP_METRICS), ("--lpips", options.lpips, LPIPS_METRICS)):
        if value and options.metrics and not set(metrics) & set(options.metrics):
            raise UserError(
                f"{option} {value} is for {' and '.join(metrics)}, which --metric leaves out. Leave it out, or add "
                f"--metric {metrics[0]}."
            )


def _complete(source: ImageSource, reference: ImageSource) -> ImageSource:
    """Single files with the pipeline whose other components they use; anything else as it is.

    Raises:
        UserError: The reference has no components that could be replaced.
    """
    if source.files and reference.kind != "diffusers":
        raise UserError(
            f"{source.place} replaces a component of the reference, but {reference.place} is no diffusers pipeline. "
            "Give the original pipeline as --model."
        )
    return replace(source, folder=reference.folder) if source.files else source


def _choose_output(first: ImageSource) -> Path:
    """Where results are put: next to the first candidate, or in the current folder if that is a server."""
    if first.url:
        return Path(EVALUATION)
    return first.files[0].file.parent / EVALUATION if first.files else Artifact.containing(first.folder).evaluation


def _choose_image_cache(output: Path) -> Path:
    """The cache that all devices share, or one in the output folder where the current folder cannot be written to."""
    return IMAGE_CACHE_DIR if is_writable(IMAGE_CACHE_DIR) else output / WORK / IMAGE_CACHE_DIR.name


def _resolve_reference(model: str) -> ImageSource:
    """Resolves a folder of any kind, or a pipeline by name."""
    if model != "demo" and Path(model).exists():
        source = detect_image_source(Path(model))
        if source.kind == "optimum":
            raise UserError(f"{model} holds graphs that optimum exported. Give the original pipeline as --model.")
        return source
    return ImageSource("diffusers", resolve_pipeline(model))


def _require_image_folder(folder: Path) -> ImageSource:
    _require_images(folder, "Give --pairs two folders of images")
    return ImageSource("images", folder)


def _require_images(folder: Path, advice: str) -> None:
    if not folder.is_dir() or not list_images(folder):
        raise reject_path(folder, advice)


def _select_prompts(
    prompts: Sequence[Prompt], limit: int | None, count: int | None
) -> tuple[tuple[Prompt, ...], PromptSubset | None]:
    """Selects the first prompts.

    Args:
        prompts: The whole prompt set.
        limit: Number of prompts given by the user.
        count: Number of prompts given by the recipe, if the user gave none.
    """
    selected = tuple(prompts[: limit or count])
    subset = PromptSubset(total=len(prompts), limited_by=_get_limit_name(limit))
    return selected, subset if len(selected) < len(prompts) else None


def _get_limit_name(limit: int | None) -> str:
    """The option or recipe key that limits the prompts."""
    return "--limit" if limit else "evaluation.count"


def _require_known_images(
    sources: Sequence[ImageSource], prompts: Sequence[Prompt], seeds: int, prompt_set: str
) -> None:
    """Refuses external images that match no prompt, because they would be ignored silently."""
    known = {get_image_stem(prompt.id, seed, seeds) for prompt in prompts for seed in range(seeds)}
    for source in sources:
        unknown = sorted(set(list_images(source.folder)) - known) if source.kind == "images" else []
        if unknown:
            suffix = ", each followed by its seed (<id>-0, <id>-1, ...)" if seeds > 1 else ""
            raise UserError(
                f"{len(unknown)} images in {source.folder} match no prompt in {prompt_set}: "
                f"{', '.join(unknown[:MAX_LISTED_NAMES])}. Name images by prompt ids{suffix}, pass the matching prompt "
                "set as --prompts, or remove them."
            )


def _make_blank_prompt(stem: str) -> Prompt:
    return Prompt(id=stem, prompt="", language="en")


def _find_original(candidate: ImageSource) -> str | None:
    """Returns the pipeline that a candidate was quantized from, if it is still on this machine.

    Manifests of earlier releases say where it is.
    """
    artifact = Artifact.containing(candidate.folder)
    manifest = read_origin(candidate)
    if manifest is None:
        return None
    source = find_source(artifact) or Path(manifest.source)
    return str(source) if source.is_absolute() and source.is_dir() else None


def _find_loras(candidate: ImageSource, recipe: Recipe) -> tuple[str, ...]:
    """Returns the LoRAs that a candidate was quantized with, or else those of the recipe."""
    artifact = Artifact.containing(candidate.folder)
    manifest = read_origin(candidate)
    if manifest is None or manifest.loras:
        return (find_source_loras(artifact) if manifest else ()) or recipe.loras
    return ()


def _resolve_sampling(settings: EvaluationSettings, sources: tuple[ImageSource, ...]) -> SamplingParams | None:
    """Returns how images are generated. `native` is the size of the first pipeline, or else of the first export."""
    generating = [source for source in sources if source.kind not in ("images", "server")]
    if not generating:
        if any(source.kind == "server" for source in sources):
            raise UserError("A server is compared with a pipeline or an export. Give one as --model.")
        return None
    pipelines = [source for source in generating if source.kind == "diffusers"]
    if pipelines or settings.size != "native":
        return resolve_sampling(settings, (pipelines or generating)[0].folder)
    height, width = _get_default_size(generating[0])
    return SamplingParams(height, width, settings.steps, settings.guidance, settings.negative_prompt)


def _get_default_size(source: ImageSource) -> tuple[int, int]:
    """Returns the height and width of the images that an export generates by default."""
    if source.kind == "rknn":
        return load_exported_rknn(source.folder).image_size
    exported = load_exported_onnx(source.folder)
    with reject_malformed(source.folder):
        resolution = load_host(get_family(exported.pipeline_class), exported.host_configs).native_resolution
    return resolution, resolution


def _require_size(sampling: SamplingParams | None, sources: tuple[ImageSource, ...]) -> None:
    """Refuses exports that do not support the image size, before any image is generated."""
    for source in sources:
        supported = _list_fixed_sizes(source)
        if sampling and supported and (sampling.height, sampling.width) not in supported:
            sizes = ", ".join(f"{height}x{width}" for height, width in supported)
            raise UserError(
                f"{source.folder} supports images of {sizes} only, but {sampling.height}x{sampling.width} was "
                "requested. Set evaluation.size to a supported size, or export again."
            )


def _require_possible_size(settings: EvaluationSettings, sources: tuple[ImageSource, ...]) -> None:
    """Refuses a size that a described pipeline cannot generate."""
    for source in sources if settings.size != "native" else ():
        family = load_families().get(read_pipeline_class(source.folder)) if source.kind == "diffusers" else None
        if family is not None:
            with suppress(LookupError, TypeError, ValueError):  # of configs that say nothing true; a check says so
                check_image_size(family, read_configs(source.folder), *cast("tuple[int, int]", settings.size))


def _list_fixed_sizes(source: ImageSource) -> tuple[tuple[int, int], ...]:
    """Returns the image sizes (height, width) of graphs with fixed shapes; empty if any size is supported."""
    if source.kind == "rknn":
        return (load_exported_rknn(source.folder).image_size,)
    return load_exported_onnx(source.folder).image_sizes if source.kind == "onnx" else ()


def _resolve_dtype(dtype: str, sources: tuple[ImageSource, ...]) -> str:
    pipelines = [source.folder for source in sources if source.kind == "diffusers"]
    return resolve_dtype(dtype, pipelines[0]) if pipelines else "float32"
