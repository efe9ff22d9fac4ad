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

from ..artifact import versions
from ..progress import Progress, silent
from ..prompts import Prompt
from ..sampling import Sampling, batches
from ..source_code import PACKAGE, code_of, family_modules
from . import painters
from .painters import Batch, Painted, batch_size, engine_of, painter
from .pictures import CUT_MARK, NAN_MARK
from .sides import Side


@dataclass(frozen=True)
class Source:
    """A side and the way it is run. sha256: of the folder's content. run: tells a second run from the first."""

    side: Side
    sha256: str
    dtype: str
    sampling: Sampling
    run: int = 0


def batches_of(prompts: Sequence[Prompt], seeds: int, size: int) -> list[Batch]:
    """Every prompt with every seed 0 ... seeds - 1."""
    return [Batch(tuple(group), seed) for seed in range(seeds) for group in batches(prompts, size)]


def files_of(source: Source, batch: Batch, cache: Path) -> list[Path]:
    """Where the pictures of a batch are kept, in the order of its prompts."""
    folder = cache / _key(source, batch)
    return [folder / f"{position}.png" for position in range(len(batch.prompts))]


def generate(
    source: Source,
    prompts: Sequence[Prompt],
    seeds: int,
    cache: Path,
    progress: Progress = silent,
    stage: str = "painting",
    anew: bool = False,
) -> dict[tuple[str, int], Path]:
    """Makes the pictures that the cache lacks; the side is loaded only if there are any, and freed afterwards.

    Args:
        anew: make them all.

    Returns:
        The files by prompt id and seed.
    """
    work = batches_of(prompts, seeds, batch_size(source.side, source.sampling))
    missing = [batch for batch in work if anew or not all(file.exists() for file in files_of(source, batch, cache))]
    total = sum(len(batch.prompts) for batch in work)
    done = total - sum(len(batch.prompts) for batch in missing)
    progress(stage, done, total)
    for batch in _painted(source, missing, cache):
        done += len(batch.prompts)
        progress(stage, done, total)
    return {
        (prompt.id, batch.seed): file
        for batch in work
        for prompt, file in zip(batch.prompts, files_of(source, batch, cache), strict=True)
    }


def _painted(source: Source, work: Sequence[Batch], cache: Path) -> Iterator[Batch]:
    """Each batch as soon as its pictures are on disk."""
    if not work:
        return
    paint = painter(source.side, source.sampling, source.dtype)
    for batch in work:
        for painted, file in zip(paint(batch), files_of(source, batch, cache), strict=True):
            _publish(painted, file)
        yield batch
    del paint
    gc.collect()


def _publish(painted: Painted, file: Path) -> None:
    """Writes under a temporary name, then renames: a killed run leaves no half picture."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    said = PngInfo()
    if painted.broken:
        said.add_text(NAN_MARK, "some pixels were no number")
    if painted.cut:
        said.add_text(CUT_MARK, painted.cut)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.{os.getpid()}.new")
    with new.open("wb") as stream:
        Image.fromarray(painted.picture).save(stream, "PNG", pnginfo=said)
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)


def _painting(exported: bool) -> list[str]:
    """The modules that paint; the process of the NPU's simulator is started and not imported."""
    if not exported:
        return [f"{PACKAGE}.sampling"]
    return [f"{PACKAGE}.runtime.paint", f"{PACKAGE}.runtime.rknn.worker", *family_modules()]


def _key(source: Source, batch: Batch) -> str:
    exported = source.side.kind != "diffusers"
    content = {
        "weights": source.sha256,
        "sampling": asdict(source.sampling),
        "computed": "graphs" if exported else source.dtype,
        "prompts": [(prompt.id, prompt.prompt) for prompt in batch.prompts],
        "seed": batch.seed,
        "code": code_of(*_painting(exported), alone=painters.__name__),
        "engine": engine_of(source.side),
        "libraries": versions() | ({"onnxruntime": version("onnxruntime")} if exported else {}),
        "run": source.run,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
