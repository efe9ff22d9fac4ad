"""Brings the pictures of all sides together: painted ones from the cache, those made elsewhere from their folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..common.threads import map_threads
from ..prompts.prompt import Prompt
from .generation.candidates import ImageSource
from .generation.image_cache import GenerationJob, generate_cached_images
from .images.image_file import ImageRecord, get_image_stem, list_images, load_record
from .plan import MAX_LISTED_NAMES, EvaluationPlan
from .results.schema import RunIdentity
from .scoring.pairs import ComparisonSet, ImageSet, SampleKey, make_image_set


def iter_samples(plan: EvaluationPlan) -> Iterator[tuple[Prompt, int]]:
    """Every prompt with every seed, in the order of the rows."""
    return ((prompt, seed) for seed in range(plan.seeds) for prompt in plan.prompts)


def collect_images(plan: EvaluationPlan, identity: RunIdentity, progress: Progress = no_progress) -> ComparisonSet:
    """Paints what is missing, with one side in memory at a time, and looks at every picture.

    Raises:
        UserError: a side that cannot be loaded; true pictures that are missing, unreadable, or of another size.
    """
    ground_truth = _load_ground_truth(plan) if plan.ground_truth else {}
    if plan.sampling:
        _require_size(
            ground_truth, {prompt.id: f"{plan.sampling.width}x{plan.sampling.height}" for prompt in plan.prompts}
        )
    hashes = {name: subject.folder.sha256 for name, subject in identity.variants.items()}
    reference_hash = identity.reference.folder.sha256
    reference_images = _load_image_set(plan, plan.reference, reference_hash, "the reference", progress)
    _require_size(
        ground_truth,
        {name: shot.size for (name, _), shot in reference_images.records.items() if isinstance(shot, ImageRecord)},
    )
    repeated_images = (
        _load_image_set(plan, plan.reference, reference_hash, "the reference again", progress, 1)
        if plan.noise_floor
        else None
    )
    variants = {
        name: _load_image_set(plan, side, hashes[name], name, progress) for name, side in plan.candidates.items()
    }
    return ComparisonSet(
        reference=reference_images, variants=variants, noise_floor=repeated_images, ground_truth=ground_truth
    )


def _load_image_set(
    plan: EvaluationPlan, source: ImageSource, sha256: str, name: str, progress: Progress, repeat: int = 0
) -> ImageSet:
    files = (
        _find_image_files(plan, source)
        if source.kind == "images"
        else _generate_images(plan, source, sha256, name, progress, repeat)
    )
    image_ids = [(prompt.id, seed) for prompt, seed in iter_samples(plan)]
    records = dict(zip(image_ids, map_threads(load_record, [files.get(one) for one in image_ids]), strict=True))
    if source.kind != "images":
        _require_readable(files, records)
    return make_image_set(records)


def _generate_images(
    plan: EvaluationPlan, source: ImageSource, sha256: str, name: str, progress: Progress, repeat: int
) -> Mapping[SampleKey, Path]:
    if plan.sampling is None:
        raise ValueError("a side that paints needs a sampling")
    job = GenerationJob(source, sha256, source.dtype or plan.dtype, plan.sampling, repeat)
    stage = f"painting with {name}"
    return generate_cached_images(
        job, plan.prompts, plan.seeds, plan.image_cache, progress, stage, overwrite=not plan.resume
    )


def _find_image_files(plan: EvaluationPlan, source: ImageSource) -> dict[SampleKey, Path]:
    images = list_images(source.folder)
    stems = {(prompt.id, seed): get_image_stem(prompt.id, seed, plan.seeds) for prompt, seed in iter_samples(plan)}
    return {one: images[stem] for one, stem in stems.items() if stem in images}


def _require_readable(files: Mapping[SampleKey, Path], records: Mapping[SampleKey, object]) -> None:
    for one, shot in records.items():
        if not isinstance(shot, ImageRecord):
            raise UserError(f"{files[one]} is no readable picture; delete it and run again, and it is made anew.")


def _load_ground_truth(plan: EvaluationPlan) -> dict[str, ImageRecord]:
    """The true picture of each prompt, whatever the seed."""
    assert plan.ground_truth
    images = list_images(plan.ground_truth)
    missing = [prompt.id for prompt in plan.prompts if prompt.id not in images]
    if missing:
        raise UserError(
            f"{plan.ground_truth} lacks the true pictures of {len(missing)} prompts ({', '.join(missing[:MAX_LISTED_NAMES])}); a picture "
            "is called by its prompt's id."
        )
    names = [prompt.id for prompt in plan.prompts]
    records: dict[str, ImageRecord] = {}
    for name, shot in zip(names, map_threads(load_record, [images[name] for name in names]), strict=True):
        if not isinstance(shot, ImageRecord):
            raise UserError(f"The true picture {images[name]} cannot be read: it is {shot}; replace it.")
        records[name] = shot
    return records


def _require_size(ground_truth: Mapping[str, ImageRecord], sizes: Mapping[str, str]) -> None:
    """Refuses true pictures that could only be compared after resizing; `sizes` of the painted ones by prompt id."""
    for name, shot in ground_truth.items():
        if shot.size != sizes.get(name, shot.size):
            raise UserError(
                f"The true picture {shot.file} is {shot.size}, and what is painted {sizes[name]}; give true pictures "
                "of that size."
            )
