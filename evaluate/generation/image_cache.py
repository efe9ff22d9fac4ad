"""Generates the images of a source, and caches them as PNG files.

Each batch is one folder of the cache, whose name is a hash of everything that its images depend on. All runs with the
same prompt set use the same batches, because the last bits of an image depend on the other images of its batch. If an
image of a batch is missing, the whole batch is generated again.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from ...common.code_fingerprint import PACKAGE, code_fingerprint, model_modules
from ...common.errors import UserError, make_picklable
from ...common.executor import THIS_PROCESS, Executor
from ...common.progress import Progress, no_progress
from ...common.requirements import reject_failed_import
from ...pipelines.optimum_pipelines import find_optimum_format
from ...pipelines.quantization_packages import PACKAGES, read_quant_methods
from ...pipelines.sampling import SamplingParams, batched
from ...prompts.prompt import Prompt
from ...storage.atomic_file import atomic_write
from ...storage.manifest import library_versions
from ...storage.snapshot import FolderSnapshot
from ..images.image_file import NAN_TAG, TRUNCATION_TAG
from ..results.schema import SystemKind
from . import generators
from .candidates import ImageSource
from .cost import BatchCost, CostMeter, load_cost, save_cost
from .generators import (
    GenerateBatch,
    GeneratedImage,
    PromptBatch,
    detect_engine,
    find_memory_reader,
    get_batch_size,
    import_libraries,
    make_generator,
)
from .resources import count_threads, estimate_memory, set_threads

MAX_FAILURES = 3  # prompts that fail before any image was generated: the source cannot generate images at all
MAX_REASON = 200  # characters
NO_FAILURES_OF_PROMPTS = (ModuleNotFoundError, MemoryError, OSError)  # a missing package, full memory or a full disk


@dataclass(frozen=True)
class GenerationJob:
    """A source and how images are generated with it.

    Attributes:
        source: A diffusers pipeline, an ONNX or RKNN export, or a server.
        sha256: SHA-256 of the content of the source.
        dtype: Compute dtype of a diffusers pipeline.
        sampling: Image size, number of steps and guidance scale.
        repeat: 0, or 1 to generate the same images again for the noise floor.
        snapshot: The files of the folder before its content was read.
    """

    source: ImageSource
    sha256: str
    dtype: str
    sampling: SamplingParams
    repeat: int = 0
    snapshot: FolderSnapshot | None = None


def make_batches(prompts: Sequence[Prompt], num_seeds: int, batch_size: int) -> list[PromptBatch]:
    """Returns batches of all prompts with each of the seeds 0 to `num_seeds` - 1."""
    return [PromptBatch(tuple(group), seed) for seed in range(num_seeds) for group in batched(prompts, batch_size)]


def get_batch_files(job: GenerationJob, batch: PromptBatch, cache: Path) -> list[Path]:
    """Returns where the images of a batch are cached, in the order of its prompts."""
    folder = get_batch_folder(job, batch, cache)
    return [folder / f"{position}.png" for position in range(len(batch.prompts))]


def get_batch_folder(job: GenerationJob, batch: PromptBatch, cache: Path) -> Path:
    """Returns the folder of a batch."""
    return cache / _compute_batch_key(job, batch)


class CachedImages(NamedTuple):
    """The images of a source, by prompt id and seed.

    Attributes:
        files: The files of all images, also of those that could not be generated.
        failures: Why images could not be generated. They are not cached: the next run tries again.
        costs: What the batches cost when they were generated, in order, without those of which that is not stored.
    """

    files: dict[tuple[str, int], Path]
    failures: dict[tuple[str, int], str]
    costs: tuple[BatchCost, ...] = ()


class BatchOutcome(NamedTuple):
    """What came of a batch.

    Attributes:
        images: The images by prompt id.
        errors: Why others could not be generated, by prompt id.
        cost: What it cost.
    """

    images: dict[str, GeneratedImage]
    errors: dict[str, Exception]
    cost: BatchCost


def generate_cached_images(
    job: GenerationJob,
    prompts: Sequence[Prompt],
    num_seeds: int,
    cache: Path,
    progress: Progress = no_progress,
    stage: str = "generating images",
    overwrite: bool = False,
    executor: Executor = THIS_PROCESS,
) -> CachedImages:
    """Generates the images that the cache lacks.

    The source is only loaded if an image is missing, and is released afterwards. If it fails for one prompt of a batch,
    the prompts of that batch are generated one at a time.

    Args:
        job: The source and how to run it.
        prompts: The prompts.
        num_seeds: Number of images per prompt, with seeds 0 to `num_seeds` - 1.
        cache: Folder of the cache.
        progress: Called with the number of images that are ready.
        stage: Name of the stage for `progress`.
        overwrite: Whether to generate all images again.
        executor: Runs the batches.

    Raises:
        UserError: The source cannot be loaded, does not support the sampling parameters, fails for every prompt, or was
            changed meanwhile.
    """
    batches = make_batches(prompts, num_seeds, get_batch_size(job.source, job.sampling))
    missing = [b for b in batches if overwrite or not all(file.exists() for file in get_batch_files(job, b, cache))]
    total = sum(len(batch.prompts) for batch in batches)
    done = total - sum(len(batch.prompts) for batch in missing)
    progress(stage, done, total)
    failures: dict[tuple[str, int], str] = {}
    for batch, reasons in _generate_batches(job, missing, cache, executor):
        failures |= {(prompt_id, batch.seed): reason for prompt_id, reason in reasons.items()}
        done += len(batch.prompts)
        progress(stage, done, total)
    files = {
        (prompt.id, batch.seed): file
        for batch in batches
        for prompt, file in zip(batch.prompts, get_batch_files(job, batch, cache), strict=True)
    }
    costs = (load_cost(get_batch_folder(job, batch, cache)) for batch in batches)
    return CachedImages(files, failures, tuple(cost for cost in costs if cost))


def _generate_batches(
    job: GenerationJob, batches: Sequence[PromptBatch], cache: Path, executor: Executor
) -> Iterator[tuple[PromptBatch, dict[str, str]]]:
    """Yields each batch as soon as its images are on disk, with the reasons why some could not be generated.

    Raises:
        UserError: The first `MAX_FAILURES` prompts all failed, or all of them if there are fewer.
    """
    if not batches:
        return
    if job.source.kind == "server":  # it generates where it is
        executor = THIS_PROCESS
    cores = count_threads(job.source)
    prepare = partial(_prepare_generation, job, cores if executor.is_remote else None)
    outcomes = executor.map(prepare, batches, memory=estimate_memory(job.source), cores=cores)
    num_prompts, num_failures, num_images = sum(len(batch.prompts) for batch in batches), 0, 0
    for batch, (images, errors, cost) in zip(batches, outcomes, strict=True):
        if job.snapshot is not None:  # images are cached by the content that was read before
            job.snapshot.require_unchanged()
        num_failures, num_images = num_failures + len(errors), num_images + len(images)
        if errors and not num_images and num_failures >= min(MAX_FAILURES, num_prompts):
            raise _explain_failure(job.source, next(iter(errors.values())))
        for prompt, file in zip(batch.prompts, get_batch_files(job, batch, cache), strict=True):
            if prompt.id in images:
                _save_image(images[prompt.id], file)
            else:  # of an earlier run, if all images are generated again
                file.unlink(missing_ok=True)
        if not errors:
            save_cost(cost, get_batch_folder(job, batch, cache))
        yield batch, {prompt_id: f"not generated ({_shorten(error)})" for prompt_id, error in errors.items()}
    del outcomes  # and with it the source
    gc.collect()


def _prepare_generation(job: GenerationJob, threads: int | None) -> Callable[[PromptBatch], BatchOutcome]:
    """Loads a source, and returns a function that generates batches with it.

    Args:
        job: The source and how to run it.
        threads: Number of threads of a pipeline, on which the last bits of its images depend; None: as it is.
    """
    import_libraries(job.source)
    if threads:
        set_threads(job.source, threads)
    meter = CostMeter(find_memory_reader(job.source))
    generate = make_generator(job.source, job.sampling, job.dtype)

    def run(batch: PromptBatch) -> BatchOutcome:
        meter.start()
        images, errors = _generate_batch(generate, batch)
        return BatchOutcome(images, errors, meter.finish(len(images)))

    return run


def _generate_batch(
    generate: GenerateBatch, batch: PromptBatch
) -> tuple[dict[str, GeneratedImage], dict[str, Exception]]:
    """Returns the images and the errors of a batch by prompt id. After an error, prompts are generated one by one."""
    try:
        return dict(zip((prompt.id for prompt in batch.prompts), generate(batch), strict=True)), {}
    except NO_FAILURES_OF_PROMPTS:
        raise
    except Exception as error:  # a pipeline may raise anything
        reject_failed_import(error)
        if len(batch.prompts) == 1:
            return {}, {batch.prompts[0].id: make_picklable(error)}
    images: dict[str, GeneratedImage] = {}
    errors: dict[str, Exception] = {}
    for prompt in batch.prompts:
        new_images, new_errors = _generate_batch(generate, PromptBatch((prompt,), batch.seed))
        images |= new_images
        errors |= new_errors
    return images, errors


def _explain_failure(source: ImageSource, error: Exception) -> Exception:
    """The error of a source that fails for every prompt."""
    if isinstance(error, UserError):
        return error
    advice = "Give another file" if source.files else "Quantize or export it again"
    failure = UserError(f"{source.place} cannot generate images: {_shorten(error)}. {advice}.")
    failure.__cause__ = error
    return failure


def _shorten(error: Exception) -> str:
    """An error in one line, without a final period."""
    text = " ".join(str(error).split()).rstrip(".") or "no reason given"
    text = text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 1]}…"


def _save_image(generated: GeneratedImage, file: Path) -> None:
    """Writes a PNG file in one piece, so that a killed run leaves no partial image."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    tags = PngInfo()
    if generated.has_nan:
        tags.add_text(NAN_TAG, "some pixels were NaN")
    if generated.truncation_notice:
        tags.add_text(TRUNCATION_TAG, generated.truncation_notice)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, lambda temporary: Image.fromarray(generated.image).save(temporary, "PNG", pnginfo=tags))


def _compute_batch_key(job: GenerationJob, batch: PromptBatch) -> str:
    is_export = job.source.kind != "diffusers"
    content = {
        "weights": job.sha256,
        "sampling": job.sampling.to_dict(),
        "dtype": "graphs" if is_export else job.dtype,
        "prompts": [_describe_prompt(prompt) for prompt in batch.prompts],
        "seed": batch.seed,
        "code": code_fingerprint(*_list_generation_modules(job.source.kind), shallow=generators.__name__),
        "engine": detect_engine(job.source),
        "libraries": library_versions() | {name: version(name) for name in _list_packages(job.source)},
        "repeat": job.repeat,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _list_generation_modules(kind: SystemKind) -> list[str]:
    """Returns the modules that generate images. The NPU simulator runs in a process that is not imported."""
    if kind in ("diffusers", "optimum"):
        return [f"{PACKAGE}.pipelines.sampling"]
    if kind == "server":
        return [f"{PACKAGE}.evaluate.generation.server"]
    return [f"{PACKAGE}.runtime.pipeline", f"{PACKAGE}.runtime.rknn.toolkit_worker", *model_modules()]


@cache
def _list_packages(source: ImageSource) -> tuple[str, ...]:
    """The packages besides the usual libraries that images depend on."""
    if source.kind == "server":
        return ()
    form = find_optimum_format(source.folder) if source.kind == "optimum" else None
    if form:
        return form.list_distributions()
    if source.kind != "diffusers":
        return ("onnxruntime",)
    methods = {*read_quant_methods(source.folder).values(), *("gguf" for file in source.files if file.is_gguf)}
    return tuple(sorted({package.distribution for method in methods for package in PACKAGES.get(method, ())}))


def _describe_prompt(prompt: Prompt) -> tuple[str | float, ...]:
    """What an image depends on of a prompt; in this order and without what is absent, as earlier releases did."""
    stated = (value for value in (prompt.negative_prompt, prompt.guidance) if value is not None)
    return (prompt.id, prompt.prompt, *stated)
