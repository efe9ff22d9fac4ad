"""Sample images of a model repository: those of the last evaluation, the original's beside the variant's."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ..common.markdown_table import render_table
from ..evaluate.report.publishing import RESULTS_FILE
from ..evaluate.results.results_file import load_results
from ..evaluate.results.schema import SampleResult
from ..storage.layout import Artifact

SAMPLES = "samples"  # the folder in the repository
NUM_SAMPLES = 4
FILE_NAMES = ("original", "variant")


@dataclass(frozen=True)
class SamplePair:
    """Two images of one prompt and seed.

    Attributes:
        prompt: The prompt.
        seed: The seed.
        variant: The name of the variant.
        files: The paths of the two images in the repository, the original's first.
    """

    prompt: str
    seed: int
    variant: str
    files: tuple[str, ...]


def copy_samples(artifact: Artifact, folder: Path) -> list[SamplePair]:
    """Copies the images of the first prompts of the last evaluation into a repository.

    They are the first ones, and not the best ones. The variant is the first one of the evaluation.

    Returns:
        The pairs; none without an evaluation, or if its images were removed from the cache.
    """
    file = artifact.evaluation / RESULTS_FILE
    if not file.is_file():
        return []
    results = load_results(file)
    source, variant = Path(results.identity.image_folder), next(iter(results.variants))
    pairs: list[SamplePair] = []
    for sample in results.samples:
        images = _find_images(sample, variant, source)
        if len(images) == len(FILE_NAMES) and len(pairs) < NUM_SAMPLES:
            stems = (f"{SAMPLES}/{len(pairs) + 1}-{name}" for name in FILE_NAMES)
            files = tuple(stem + image.suffix for stem, image in zip(stems, images, strict=True))
            (folder / SAMPLES).mkdir(exist_ok=True)
            for image, name in zip(images, files, strict=True):
                shutil.copyfile(image, folder / name)
            pairs.append(SamplePair(sample.prompt.prompt, sample.seed, variant, files))
    return pairs


def describe_samples(pairs: list[SamplePair]) -> list[str]:
    """The section of the card that shows them, as paragraphs in Markdown."""
    if not pairs:
        return []
    names = (FILE_NAMES[0], _escape(pairs[0].variant))
    rows = [
        [
            _escape(pair.prompt),
            str(pair.seed),
            *(f"![{name}]({file})" for name, file in zip(names, pair.files, strict=True)),
        ]
        for pair in pairs
    ]
    note = f"The first {len(pairs)} images of the evaluation, with the same noise."
    return ["## Samples", note, render_table(("prompt", "seed", *names), rows)]


def _find_images(sample: SampleResult, variant: str, folder: Path) -> list[Path]:
    """The images of a sample that are there, the original's first."""
    images = (sample.reference, sample.variants[variant].image)
    return [folder / image.file for image in images if image and (folder / image.file).is_file()]


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
