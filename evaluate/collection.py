"""Collects the images of an evaluation: generated ones from the cache, external ones from their folders."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ..common.errors import UserError
from ..common.executor import THIS_PROCESS, Executor
from ..common.progress import Progress, no_progress
from ..common.threads import map_threads
from ..prompts.prompt import Prompt
from ..storage.snapshot import FolderSnapshot
from .generation.candidates import ImageSource
from .generation.cost import BatchCost
from .generation.image_cache import CachedImages, GenerationJob, generate_cached_images
from .images.image_file import ImageRecord, get_image_stem, list_images, load_record
from .plan import MAX_LISTED_NAMES, EvaluationPlan
from .results.schema import RunIdentity, SampleKey, SystemInfo
from .scoring.pairs import ComparisonSet, ImageSet, LoadedImage, make_image_set

logger = logging.getLogger(__name__)


class DamagedImage(NamedTuple):
    """A cached image that cannot be read."""

    file: Path


def iter_samples(plan: EvaluationPlan) -> Iterator[tuple[Prompt, int]]:
    """Yields every prompt with every seed, in the order of the samples in the results."""
    return ((prompt, seed) for seed in range(plan.seeds) for prompt in plan.prompts)


def collect_images(
    plan: EvaluationPlan,
    identity: RunIdentity,
    ground_truth: Mapping[str, ImageRecord],
    snapshots: Mapping[Path, FolderSnapshot],
    progress: Progress = no_progress,
    executor: Executor = THIS_PROCESS,
) -> ComparisonSet:
    """Generates the missing images, and loads a record of every image.

    Only one source is in the memory of a process at a time.

    Args:
        plan: What to evaluate.
        identity: Content hashes of the sources.
        ground_truth: The ground-truth images by prompt id.
        snapshots: The files of each source's folder before their content was read.
        progress: Called with the number of images that are ready, for each source.
        executor: Generates the images.

    Raises:
        UserError: A source cannot be loaded, or was changed meanwhile, or a ground-truth image has another size than
            the reference's.
    """

    def load(name: str, source: ImageSource, system: SystemInfo, repeat: int = 0) -> ImageSet:
        if source.kind == "images" or plan.sampling is None:
            return _load_image_files(plan, source)
        dtype = source.dtype or plan.dtype
        snapshot = snapshots.get(source.folder)
        job = GenerationJob(source, system.folder.sha256, dtype, plan.sampling, repeat, snapshot)
        records, costs = _load_generated(plan, job, f"generating images with {name}", progress, executor)
        return make_image_set(records, costs, system.own_noise is None)

    reference = load("the reference", plan.reference, identity.reference)
    sizes = {key[0]: record.size for key, record in reference.records.items() if isinstance(record, ImageRecord)}
    _require_size(ground_truth, sizes)
    noise_floor = None
    if plan.noise_floor:
        noise_floor = load("the reference again", plan.reference, identity.reference, repeat=1)
    variants = {name: load(name, source, identity.variants[name]) for name, source in plan.candidates.items()}
    return ComparisonSet(reference, variants, noise_floor, ground_truth)


def _load_image_files(plan: EvaluationPlan, source: ImageSource) -> ImageSet:
    if source.kind != "images":
        raise ValueError("a source that generates images needs sampling parameters")
    keys = [(prompt.id, seed) for prompt, seed in iter_samples(plan)]
    files = _find_image_files(plan, source)
    return make_image_set(dict(zip(keys, map_threads(load_record, [files.get(key) for key in keys]), strict=True)))


def _load_generated(
    plan: EvaluationPlan, job: GenerationJob, stage: str, progress: Progress, executor: Executor
) -> tuple[dict[SampleKey, LoadedImage], tuple[BatchCost, ...]]:
    """Generates the missing images and loads all, with what they cost. Damaged ones are generated again, once.

    Nobody knows whether a server is still what it was: its images are generated in every run.
    """
    arguments = job, plan.prompts, plan.seeds, plan.image_cache, progress, stage
    cached = generate_cached_images(
        *arguments, overwrite=plan.restart or job.source.kind == "server", executor=executor
    )
    records = _load_cached(plan, cached)
    damaged = [record.file for record in records.values() if isinstance(record, DamagedImage)]
    if damaged:
        count = f"{len(damaged)} cached image{'s are' if len(damaged) > 1 else ' is'} damaged"
        logger.warning("%s, such as %s. Generating again.", count, damaged[0])
        for file in damaged:
            file.unlink()
        cached = generate_cached_images(*arguments, executor=executor)
        records = _load_cached(plan, cached)
    loaded = {key: "unreadable" if isinstance(record, DamagedImage) else record for key, record in records.items()}
    return loaded, cached.costs


def _load_cached(plan: EvaluationPlan, images: CachedImages) -> dict[SampleKey, LoadedImage | DamagedImage]:
    """Loads the images that there are; of the others, the result is the reason."""
    keys = [(prompt.id, seed) for prompt, seed in iter_samples(plan)]
    files = [images.files[key] for key in keys if key not in images.failures]
    loaded = zip(files, map_threads(load_record, files), strict=True)
    records = {file: record if isinstance(record, ImageRecord) else DamagedImage(file) for file, record in loaded}
    return {key: images.failures.get(key) or records[images.files[key]] for key in keys}


def _find_image_files(plan: EvaluationPlan, source: ImageSource) -> dict[SampleKey, Path]:
    images = list_images(source.folder)
    stems = {(prompt.id, seed): get_image_stem(prompt.id, seed, plan.seeds) for prompt, seed in iter_samples(plan)}
    return {key: images[stem] for key, stem in stems.items() if stem in images}


def load_ground_truth(plan: EvaluationPlan) -> dict[str, ImageRecord]:
    """Loads the ground-truth image of each prompt, which is the same for all seeds.

    Returns:
        The images by prompt id; empty if the plan has no ground truth.

    Raises:
        UserError: An image is missing, unreadable, or not of the size that will be generated.
    """
    if not plan.ground_truth:
        return {}
    images = list_images(plan.ground_truth)
    stems = {prompt.id: get_image_stem(prompt.id, 0, 1) for prompt in plan.prompts}
    missing = [prompt_id for prompt_id, stem in stems.items() if stem not in images]
    if missing:
        raise UserError(
            f"{plan.ground_truth} lacks the ground-truth images of {len(missing)} prompts "
            f"({', '.join(missing[:MAX_LISTED_NAMES])}). Name each image by the id of its prompt."
        )
    files = [images[stem] for stem in stems.values()]
    records: dict[str, ImageRecord] = {}
    for prompt_id, file, record in zip(stems, files, map_threads(load_record, files), strict=True):
        if not isinstance(record, ImageRecord):
            raise UserError(f"The ground-truth image {file} is {record}. Replace it.")
        records[prompt_id] = record
    if plan.sampling:
        size = f"{plan.sampling.width}x{plan.sampling.height}"
        _require_size(records, {prompt.id: size for prompt in plan.prompts})
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
