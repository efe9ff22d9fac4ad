"""Collects the images of an evaluation: generated ones from the cache, external ones from their folders."""

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
from .results.schema import RunIdentity, SampleKey
from .scoring.pairs import ComparisonSet, ImageSet, make_image_set


def iter_samples(plan: EvaluationPlan) -> Iterator[tuple[Prompt, int]]:
    """Yields every prompt with every seed, in the order of the samples in the results."""
    return ((prompt, seed) for seed in range(plan.seeds) for prompt in plan.prompts)


def collect_images(plan: EvaluationPlan, identity: RunIdentity, progress: Progress = no_progress) -> ComparisonSet:
    """Generates the missing images, and loads a record of every image.

    Only one source is in memory at a time.

    Args:
        plan: What to evaluate.
        identity: Content hashes of the sources.
        progress: Called with the number of images that are ready, for each source.

    Raises:
        UserError: A source cannot be loaded, a cached image is corrupt, or a ground-truth image is missing, unreadable
            or of another size.
    """
    ground_truth = _load_ground_truth(plan) if plan.ground_truth else {}
    if plan.sampling:
        size = f"{plan.sampling.width}x{plan.sampling.height}"
        _require_size(ground_truth, {prompt.id: size for prompt in plan.prompts})
    hashes = {name: system.folder.sha256 for name, system in identity.variants.items()}
    reference_hash = identity.reference.folder.sha256
    reference = _load_image_set(plan, plan.reference, reference_hash, "the reference", progress)
    sizes = {key[0]: record.size for key, record in reference.records.items() if isinstance(record, ImageRecord)}
    _require_size(ground_truth, sizes)
    noise_floor = None
    if plan.noise_floor:
        noise_floor = _load_image_set(plan, plan.reference, reference_hash, "the reference again", progress, repeat=1)
    variants = {name: _load_image_set(plan, src, hashes[name], name, progress) for name, src in plan.candidates.items()}
    return ComparisonSet(reference, variants, noise_floor, ground_truth)


def _load_image_set(
    plan: EvaluationPlan, source: ImageSource, sha256: str, name: str, progress: Progress, repeat: int = 0
) -> ImageSet:
    keys = [(prompt.id, seed) for prompt, seed in iter_samples(plan)]
    if source.kind == "images":
        files = _find_image_files(plan, source)
        return make_image_set(dict(zip(keys, map_threads(load_record, [files.get(key) for key in keys]), strict=True)))
    files = _generate_images(plan, source, sha256, name, progress, repeat)
    records = dict(zip(keys, map_threads(load_record, [files[key] for key in keys]), strict=True))
    for key, record in records.items():
        if not isinstance(record, ImageRecord):
            raise UserError(f"The cached image {files[key]} is not readable. Delete it and run again.")
    return make_image_set(records)


def _generate_images(
    plan: EvaluationPlan, source: ImageSource, sha256: str, name: str, progress: Progress, repeat: int
) -> dict[SampleKey, Path]:
    if plan.sampling is None:
        raise ValueError("a source that generates images needs sampling parameters")
    return generate_cached_images(
        GenerationJob(source, sha256, source.dtype or plan.dtype, plan.sampling, repeat),
        plan.prompts,
        plan.seeds,
        plan.image_cache,
        progress,
        f"generating images with {name}",
        overwrite=plan.restart,
    )


def _find_image_files(plan: EvaluationPlan, source: ImageSource) -> dict[SampleKey, Path]:
    images = list_images(source.folder)
    stems = {(prompt.id, seed): get_image_stem(prompt.id, seed, plan.seeds) for prompt, seed in iter_samples(plan)}
    return {key: images[stem] for key, stem in stems.items() if stem in images}


def _load_ground_truth(plan: EvaluationPlan) -> dict[str, ImageRecord]:
    """Loads the ground-truth image of each prompt, which is the same for all seeds."""
    assert plan.ground_truth
    images = list_images(plan.ground_truth)
    prompt_ids = [prompt.id for prompt in plan.prompts]
    missing = [prompt_id for prompt_id in prompt_ids if prompt_id not in images]
    if missing:
        raise UserError(
            f"{plan.ground_truth} lacks the ground-truth images of {len(missing)} prompts "
            f"({', '.join(missing[:MAX_LISTED_NAMES])}). Name each image by the id of its prompt."
        )
    files = [images[prompt_id] for prompt_id in prompt_ids]
    records: dict[str, ImageRecord] = {}
    for prompt_id, file, record in zip(prompt_ids, files, map_threads(load_record, files), strict=True):
        if not isinstance(record, ImageRecord):
            raise UserError(f"The ground-truth image {file} is {record}. Replace it.")
        records[prompt_id] = record
    return records


def _require_size(ground_truth: Mapping[str, ImageRecord], sizes: Mapping[str, str]) -> None:
    """Refuses ground-truth images that would have to be resized.

    Args:
        ground_truth: The ground-truth images by prompt id.
        sizes: Sizes of the generated images by prompt id.
    """
    for prompt_id, record in ground_truth.items():
        if record.size != sizes.get(prompt_id, record.size):
            raise UserError(
                f"The ground-truth image {record.file} is {record.size}, but the generated image is "
                f"{sizes[prompt_id]}. Use ground-truth images of that size."
            )
