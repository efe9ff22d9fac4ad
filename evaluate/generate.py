"""Makes the pictures of one pipeline, and keeps them as PNG under a name that says everything they depend on.

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
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..artifact import versions
from ..errors import UserError
from ..progress import Progress, silent
from ..prompts import Prompt
from ..sampling import Sampling, batches, load_pipeline, sample
from .registry import Picture

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Source:
    """A pipeline and the way it is run; `sha256` is that of the folder's content."""

    folder: Path
    sha256: str
    dtype: str
    sampling: Sampling


@dataclass(frozen=True)
class Batch:
    """Prompts that are painted together."""

    prompts: tuple[Prompt, ...]
    seed: int


def batches_of(prompts: Sequence[Prompt], seeds: int, sampling: Sampling) -> list[Batch]:
    """Every prompt with every seed 0 ... seeds - 1."""
    return [Batch(tuple(group), seed) for seed in range(seeds) for group in batches(prompts, sampling.batch)]


def files_of(source: Source, batch: Batch, cache: Path) -> list[Path]:
    """Where the pictures of a batch are kept, in the order of its prompts."""
    folder = cache / _key(source, batch)
    return [folder / f"{position}.png" for position in range(len(batch.prompts))]


def generate(
    source: Source, work: Sequence[Batch], cache: Path, progress: Progress = silent, stage: str = "painting"
) -> None:
    """Makes the pictures that the cache lacks; the pipeline is loaded only if there are any, and freed afterwards."""
    missing = [batch for batch in work if not all(file.exists() for file in files_of(source, batch, cache))]
    total = sum(len(batch.prompts) for batch in work)
    done = total - sum(len(batch.prompts) for batch in missing)
    progress(stage, done, total)
    for batch in _painted(source, missing, cache):
        done += len(batch.prompts)
        progress(stage, done, total)


def open_picture(file: Path) -> Picture:
    """An RGB picture.

    Raises:
        UserError: no picture can be read from the file.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise UserError(f"{file} is no readable picture; delete it and run again, and it is made anew.") from error


def _painted(source: Source, work: Sequence[Batch], cache: Path) -> Iterator[Batch]:
    """Each batch as soon as its pictures are on disk."""
    import torch

    pipeline = load_pipeline(source.folder, getattr(torch, source.dtype)) if work else None
    for batch in work:
        images = sample(pipeline, batch.prompts, source.sampling, batch.seed)
        for image, file in zip(images, files_of(source, batch, cache), strict=True):
            _publish(image, file)
        yield batch
    del pipeline
    gc.collect()


def _publish(image: Image, file: Path) -> None:
    """Writes under a temporary name, then renames: a killed run leaves no half picture."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.{os.getpid()}.new")
    with new.open("wb") as stream:
        image.save(stream, "PNG")
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)


def _key(source: Source, batch: Batch) -> str:
    content = {
        "weights": source.sha256,
        "sampling": asdict(source.sampling),
        "dtype": source.dtype,
        "prompts": [(prompt.id, prompt.prompt) for prompt in batch.prompts],
        "seed": batch.seed,
        "libraries": versions(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
