"""Settles what an evaluation compares: both sides, prompts, sampling and limits, from a recipe and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import prompt_sets
from ..artifact import read_manifest
from ..errors import UserError
from ..models import family_of
from ..models.host import host_of
from ..prompts import Prompt
from ..recipe import Evaluation, Recipe
from ..runtime import manifest
from ..runtime.rknn import manifest as parts
from ..sampling import Sampling, compute_dtype, sampling_of
from ..sources import own_clip, prompt_file, resolve
from .pictures import pictures_in, stem_of
from .registry import Settings
from .results import Limited
from .sides import Side, candidates_of, side_of

ARTIFACTS = Path("artifacts")
CACHE = ARTIFACTS / ".work" / "pictures"  # shared by all devices, whose references are often the same
SOME = 3  # names that a sentence shows


@dataclass(frozen=True)
class Options:
    """What a caller wants otherwise than the recipe; nothing given leaves it to the recipe."""

    model: str | None = None
    candidates: tuple[str, ...] = ()
    prompts: str | None = None
    limit: int | None = None
    seeds: int = 1
    truth: Path | None = None
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
class Plan:
    """A reference, the candidates by name, and what all have to paint; seeds are 0 ... seeds - 1.

    sampling: None where all pictures were made elsewhere. dtype: of diffusers pipelines. asked: the prompt set's name.
    limited: how much of it is left out, if any is.
    metrics: those to measure, all where there are none. gates: limits as the recipe has them. resume: whether pictures
    and readings of earlier runs are used.
    """

    reference: Side
    candidates: Mapping[str, Side]
    prompts: tuple[Prompt, ...]
    sampling: Sampling | None
    dtype: str
    output: Path
    seeds: int = 1
    asked: str | None = None
    limited: Limited | None = None
    truth: Path | None = None
    settings: Settings = field(default_factory=Settings)
    metrics: tuple[str, ...] = ()
    gates: Mapping[str, float | str] = field(default_factory=dict)
    strict: bool = False
    noise_floor: bool = False
    baseline: Path | None = None
    history: Path | None = None
    device: str = "custom"
    resume: bool = True
    cache: Path = CACHE

    @property
    def memo(self) -> Path:
        """Where readings are kept, beside the cache of pictures."""
        return self.cache.with_name("readings.sqlite")


def plan_for(recipe: Recipe, options: Options = Options()) -> Plan:
    """The plan of a recipe and of what is wanted otherwise.

    Raises:
        UserError: there is no such reference, candidate, prompt file or folder of true pictures, or a side that cannot
            paint the wanted size.
    """
    given = _reference(options.model) if options.model else None
    candidates = candidates_of(options.candidates or (str(ARTIFACTS / recipe.device / "model"),))
    first = next(iter(candidates.values()))
    reference = given or _reference(_source_of(first) or recipe.model)
    asked = prompt_file(reference.folder, options.prompts or recipe.evaluation.prompts, "evaluation")
    whole = prompt_sets.load(asked)
    sides = (reference, *candidates.values())
    _check_stems(sides, whole, options.seeds, str(asked))
    prompts, limited = _limited(whole, options, None if _all_pictures(sides) else recipe.evaluation.count)
    sampling = _sampling(recipe.evaluation, sides)
    _check_sizes(sampling, sides)
    plan = Plan(
        reference=reference,
        candidates=candidates,
        prompts=prompts,
        limited=limited,
        sampling=sampling,
        dtype=_dtype(recipe.dtype, sides),
        output=options.output or first.folder.parent / "evaluation",
        seeds=options.seeds,
        asked=str(asked),
    )
    return _judged(plan, recipe, options)


def plan_of_pairs(recipe: Recipe, reference: Path, variant: Path, options: Options = Options()) -> Plan:
    """Pictures made elsewhere, in two folders, paired by their names without suffixes.

    With a prompt set a picture is named by its prompt's id; without, only the two pictures are compared.

    Raises:
        UserError: a folder without pictures, or pictures that the prompt set does not know.
    """
    sides = [_pictures(folder) for folder in (reference, variant)]
    stems = sorted({stem for side in sides for stem in pictures_in(side.folder)})
    asked = prompt_file(reference, options.prompts, "evaluation") if options.prompts else None
    prompts = prompt_sets.load(asked) if asked else [_unasked(stem) for stem in stems]
    _check_stems(sides, prompts, 1, options.prompts or "")
    chosen, limited = _limited(prompts, options, None)
    plan = Plan(
        reference=sides[0],
        candidates={variant.resolve().name: sides[1]},
        prompts=chosen,
        limited=limited,
        sampling=None,
        dtype="float32",
        output=options.output or Path("evaluation"),
        asked=str(asked) if asked else None,
    )
    return _judged(plan, recipe, options)


def _judged(plan: Plan, recipe: Recipe, options: Options) -> Plan:
    """The plan with what is measured and what is held against it."""
    wanted = recipe.evaluation
    clip = options.clip or (own_clip(plan.reference.folder) if wanted.clip == "own" else wanted.clip)
    floor = wanted.noise_floor if options.noise_floor is None else options.noise_floor
    if options.truth and not (options.truth.is_dir() and pictures_in(options.truth)):
        raise UserError(f"There are no true pictures in {options.truth}; --truth wants a folder with <prompt id>.png.")
    return replace(
        plan,
        truth=options.truth,
        settings=Settings(clip=clip, lpips=options.lpips),
        metrics=options.metrics,
        gates=wanted.gates if options.gates else {},
        strict=wanted.strict,
        noise_floor=floor and plan.reference.kind != "images",
        baseline=options.baseline,
        history=options.history,
        device=recipe.device,
        resume=options.resume,
    )


def _reference(model: str) -> Side:
    """A pipeline by name, or a folder of any kind."""
    if model != "demo" and Path(model).is_dir():
        return side_of(Path(model))
    return Side("diffusers", resolve(model))


def _pictures(folder: Path) -> Side:
    if not folder.is_dir() or not pictures_in(folder):
        raise UserError(f"There are no pictures in {folder}; --pairs wants two folders of pictures.")
    return Side("images", folder)


def _all_pictures(sides: Sequence[Side]) -> bool:
    return all(side.kind == "images" for side in sides)


def _limited(
    prompts: Sequence[Prompt], options: Options, count: int | None
) -> tuple[tuple[Prompt, ...], Limited | None]:
    """The first prompts, as many as are wanted, and what is left out; count: the recipe's."""
    chosen = tuple(prompts[: options.limit or count])
    by = "--limit" if options.limit else "evaluation.count"
    return chosen, Limited(prompts=len(prompts), by=by) if len(chosen) < len(prompts) else None


def _check_stems(sides: Sequence[Side], prompts: Sequence[Prompt], seeds: int, asked: str) -> None:
    """Refuses pictures made elsewhere that are no prompt's: they would be left out without a word."""
    known = {stem_of(prompt.id, seed, seeds) for prompt in prompts for seed in range(seeds)}
    for side in sides:
        unknown = sorted(set(pictures_in(side.folder)) - known) if side.kind == "images" else []
        if unknown:
            more = ", each with its seed: <id>-0 and so on" if seeds > 1 else ""
            raise UserError(
                f"{len(unknown)} pictures of {side.folder} are no prompt's of {asked} ({', '.join(unknown[:SOME])}); "
                f"name them by prompt ids{more}, give the set that they are of as --prompts, or move them away."
            )


def _unasked(stem: str) -> Prompt:
    return Prompt(id=stem, prompt="", language="en")


def _source_of(candidate: Side) -> str | None:
    """The pipeline that a candidate was pressed from, if its manifest names one that is still there."""
    found = read_manifest(candidate.folder.parent)
    return found.source if found and Path(found.source).is_dir() else None


def _sampling(pictures: Evaluation, sides: tuple[Side, ...]) -> Sampling | None:
    """How the sides paint that do; `native` is the first pipeline's size, or else that of the first graphs."""
    painting = [side for side in sides if side.kind != "images"]
    if not painting:
        return None
    pipelines = [side for side in painting if side.kind == "diffusers"]
    if pipelines or pictures.size != "native":
        return sampling_of(pictures, (pipelines or painting)[0].folder)
    height, width = _exported_size(painting[0])
    return Sampling(height=height, width=width, steps=pictures.steps, guidance=pictures.guidance)


def _exported_size(side: Side) -> tuple[int, int]:
    """What graphs paint if they are not told otherwise, and parts always."""
    if side.kind == "rknn":
        return parts.read(side.folder).size
    exported = manifest.read(side.folder)
    return (host_of(family_of(exported.family), exported.host).native,) * 2


def _check_sizes(sampling: Sampling | None, sides: tuple[Side, ...]) -> None:
    """Refuses what paints no picture of the wanted size, before others have painted theirs."""
    for side in sides:
        fixed = _fixed_sizes(side)
        if sampling and fixed and (sampling.height, sampling.width) not in fixed:
            there = ", ".join(f"{height}x{width}" for height, width in fixed)
            raise UserError(
                f"{side.folder} paints pictures of {there} alone, not of {sampling.height}x{sampling.width}; set "
                "evaluation.size to one that it paints, or export it anew."
            )


def _fixed_sizes(side: Side) -> tuple[tuple[int, int], ...]:
    """Heights and widths of the pictures that graphs of fixed shapes paint; empty where any may be asked for."""
    if side.kind == "rknn":
        return (parts.read(side.folder).size,)
    return manifest.read(side.folder).sizes if side.kind == "onnx" else ()


def _dtype(asked: str, sides: tuple[Side, ...]) -> str:
    pipelines = [side.folder for side in sides if side.kind == "diffusers"]
    return compute_dtype(asked, pipelines[0]) if pipelines else "float32"
