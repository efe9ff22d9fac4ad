"""Makes the pictures of one side, and keeps them as PNG under a name that says everything they depend on.

A batch is one folder of the cache. Batches hold the same prompts in every run with the same prompt set, because a
picture's last bits depend on what it was made together with; a batch that lacks a picture is made whole again.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from ...common.code_fingerprint import PACKAGE, code_fingerprint, model_modules
from ...common.progress import Progress, no_progress
from ...pipelines.sampling import SamplingParams, batched
from ...prompts.prompt import Prompt
from ...storage.manifest import library_versions
from ..images.image_file import NAN_TAG, TRUNCATION_TAG
from . import generators
from .candidates import ImageSource
from .generators import GeneratedImage, PromptBatch, detect_engine, get_batch_size, make_generator


@dataclass(frozen=True)
class GenerationJob:
    """A side and the way it is run. sha256: of the folder's content. run: tells a second run from the first."""

    source: ImageSource
    sha256: str
    dtype: str
    sampling: SamplingParams
    repeat: int = 0


def make_batches(prompts: Sequence[Prompt], seeds: int, size: int) -> list[PromptBatch]:
    """Every prompt with every seed 0 ... seeds - 1."""
    return [PromptBatch(tuple(group), seed) for seed in range(seeds) for group in batched(prompts, size)]


def get_batch_files(job: GenerationJob, batch: PromptBatch, cache: Path) -> list[Path]:
    """Where the pictures of a batch are kept, in the order of its prompts."""
    folder = cache / _compute_batch_key(job, batch)
    return [folder / f"{position}.png" for position in range(len(batch.prompts))]


def generate_cached_images(
    job: GenerationJob,
    prompts: Sequence[Prompt],
    seeds: int,
    cache: Path,
    progress: Progress = no_progress,
    stage: str = "painting",
    overwrite: bool = False,
) -> dict[tuple[str, int], Path]:
    """Makes the pictures that the cache lacks; the side is loaded only if there are any, and freed afterwards.

    Args:
        anew: make them all.

    Returns:
        The files by prompt id and seed.
    """
    batches = make_batches(prompts, seeds, get_batch_size(job.source, job.sampling))
    missing = [
        batch for batch in batches if overwrite or not all(file.exists() for file in get_batch_files(job, batch, cache))
    ]
    total = sum(len(batch.prompts) for batch in batches)
    done = total - sum(len(batch.prompts) for batch in missing)
    progress(stage, done, total)
    for batch in _generate_batches(job, missing, cache):
        done += len(batch.prompts)
        progress(stage, done, total)
    return {
        (prompt.id, batch.seed): file
        for batch in batches
        for prompt, file in zip(batch.prompts, get_batch_files(job, batch, cache), strict=True)
    }


def _generate_batches(source: GenerationJob, work: Sequence[PromptBatch], cache: Path) -> Iterator[PromptBatch]:
    """Each batch as soon as its pictures are on disk."""
    if not work:
        return
    paint = make_generator(source.source, source.sampling, source.dtype)
    for batch in work:
        for painted, file in zip(paint(batch), get_batch_files(source, batch, cache), strict=True):
            _save_image(painted, file)
        yield batch
    del paint
    gc.collect()


def _save_image(painted: GeneratedImage, file: Path) -> None:
    """Writes under a temporary name, then renames: a killed run leaves no half picture."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    said = PngInfo()
    if painted.has_nan:
        said.add_text(NAN_TAG, "some pixels were no number")
    if painted.truncation_notice:
        said.add_text(TRUNCATION_TAG, painted.truncation_notice)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.{os.getpid()}.new")
    with new.open("wb") as stream:
        Image.fromarray(painted.image).save(stream, "PNG", pnginfo=said)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)


def _list_generation_modules(exported: bool) -> list[str]:
    """The modules that paint; the process of the NPU's simulator is started and not imported."""
    if not exported:
        return [f"{PACKAGE}.sampling"]
    return [f"{PACKAGE}.runtime.paint", f"{PACKAGE}.runtime.rknn.worker", *model_modules()]


def _compute_batch_key(source: GenerationJob, batch: PromptBatch) -> str:
    exported = source.source.kind != "diffusers"
    content = {
        "weights": source.sha256,
        "sampling": asdict(source.sampling),
        "computed": "graphs" if exported else source.dtype,
        "prompts": [(prompt.id, prompt.prompt) for prompt in batch.prompts],
        "seed": batch.seed,
        "code": code_fingerprint(*_list_generation_modules(exported), alone=generators.__name__),
        "engine": detect_engine(source.source),
        "libraries": library_versions() | ({"onnxruntime": version("onnxruntime")} if exported else {}),
        "run": source.repeat,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
