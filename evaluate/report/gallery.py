"""The gallery's data for the page's scripts: a case a prompt, seed and variant, with scores, pictures and readings.

Pictures go into the page worst first, until the budget is spent. A case that has none still shows its numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...common.errors import UserError
from ..images.image_file import load_image
from ..images.types import ImageArray
from ..metrics.base import Score
from ..results.aggregate import group_samples
from ..results.schema import ALL_GROUP, ImageResult, PairResult, Results, SampleResult
from . import formatting, text_diff
from .heatmap import Heatmap
from .thumbnails import LARGE_SIZE, SMALL_SIZE, Thumbnails

NUM_LARGE = 24  # cases whose pictures are kept large


@dataclass(frozen=True)
class GalleryItem:
    """A variant's row: `row` is its number in the results."""

    index: int
    variant: str


@dataclass(frozen=True)
class Gallery:
    """`data` is what the scripts read; of `painted` cases that have a picture, `shown` have it in the page."""

    data: dict[str, Any]
    num_embedded: int
    num_images: int


def build_gallery(results: Results, folder: Path, heatmap: Heatmap, thumbnails: Thumbnails) -> Gallery:
    """All cases, in the order of the rows; `folder` is where the page will be."""
    order = rank_items(results)
    album = _Album(results, folder, thumbnails, heatmap)
    for rank, case in enumerate(order):
        album.take(case, LARGE_SIZE if rank < NUM_LARGE else SMALL_SIZE)
    cases = [GalleryItem(number, name) for number, row in enumerate(results.samples) for name in row.variants]
    data = {
        "variants": list(results.variants),
        "scores": [
            _score_data(score, score in results.pair_scores) for score in formatting.scores_by_name(results).values()
        ],
        "groups": [name for name in group_samples(results.samples) if name != ALL_GROUP],
        "rows": [_row_data(row, number, album) for number, row in enumerate(results.samples)],
        "cases": [_case_data(results.samples[case.index], case, album) for case in cases],
        "images": album.thumbnails.data_urls,
    }
    painted = [case for case, row in _cases(results) if row.variants[case.variant].image]
    return Gallery(data, len(album.variants), len(painted))


def rank_items(results: Results) -> list[GalleryItem]:
    """What could not be compared or shows nothing, then every case by its worst place in the order of any score."""
    ranks: dict[GalleryItem, int] = {}
    for score in formatting.scores_by_name(results).values():
        bad = {
            case: value
            for case, row in _cases(results)
            if (value := compute_loss(row, case.variant, score)) is not None
        }
        for rank, case in enumerate(sorted(bad, key=lambda case: -bad[case]), 1):
            ranks[case] = min(rank, ranks.get(case, rank))
    broken = {case for case, row in _cases(results) if _is_broken(row.variants[case.variant])}
    return sorted(
        (case for case, _ in _cases(results)),
        key=lambda case: (case not in broken, ranks.get(case, len(results.samples) + 1), case.index),
    )


def compute_loss(row: SampleResult, variant: str, score: Score) -> float | None:
    """Higher where the variant is worse: a pair score, or the drop of a picture score; None where it has none."""
    sign = 1 if score.higher_is_better else -1
    seen = row.variants[variant]
    if seen.failure is not None:
        return None
    if score.name in seen.values:
        value = seen.values[score.name]
        return None if value is None else -sign * value
    reference, other = _value(row.reference, score), _value(seen.image, score)
    return None if reference is None or other is None else sign * (reference - other)


def _cases(results: Results) -> Iterator[tuple[GalleryItem, SampleResult]]:
    for number, row in enumerate(results.samples):
        for name in row.variants:
            yield GalleryItem(number, name), row


def _is_broken(seen: PairResult) -> bool:
    return seen.failure is not None or (seen.image is not None and seen.image.defect is not None)


def _file(picture: ImageResult | None) -> str | None:
    return picture.file if picture else None


def _value(picture: ImageResult | None, score: Score) -> float | None:
    return picture.values.get(score.name) if picture else None


# ---------------------------------------------------------------- pictures


@dataclass
class _Album:
    """Which picture of the page stands for which row and case."""

    results: Results
    folder: Path
    thumbnails: Thumbnails
    heat: Heatmap
    references: dict[int, int] = field(default_factory=dict)
    truths: dict[int, int] = field(default_factory=dict)
    variants: dict[GalleryItem, int] = field(default_factory=dict)
    heats: dict[GalleryItem, int] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)  # width and height of a row's pictures

    def take(self, case: GalleryItem, side: int) -> None:
        """Puts a case's pictures into the page, where they can be read and there is room."""
        row = self.results.samples[case.index]
        seen = row.variants[case.variant]
        reference, variant, truth = (
            self.read(file) for file in (_file(row.reference), _file(seen.image), row.ground_truth)
        )
        for picture, kept, key in (
            (reference, self.references, case.index),
            (truth, self.truths, case.index),
            (variant, self.variants, case),
        ):
            if picture is not None and key not in kept:
                self.keep(picture, kept, key, side)
        if reference is not None and variant is not None and reference.shape == variant.shape:
            self.keep(self.heat.render(reference, variant), self.heats, case, side)
        shown = reference if reference is not None else variant
        if shown is not None:
            self.sizes[case.index] = (shown.shape[1], shown.shape[0])

    def keep(self, picture: ImageArray, kept: dict[Any, int], key: int | GalleryItem, side: int) -> None:
        number = self.thumbnails.add(picture, side)
        if number is not None:
            kept[key] = number

    def read(self, file: str | None) -> ImageArray | None:
        """None for what is not there or cannot be read: the page then says so in its place."""
        if file is None:
            return None
        try:
            return load_image(self.path(file))
        except UserError:
            return None

    def path(self, file: str) -> Path:
        return Path(self.results.identity.image_folder) / file

    def link(self, file: str | None) -> str | None:
        """The address of the original as seen from the page, if it is there."""
        if file is None or not self.path(file).exists():
            return None
        return quote(os.path.relpath(self.path(file).absolute(), self.folder.absolute()))


# ---------------------------------------------------------------- what the scripts read


def _score_data(score: Score, pair: bool) -> dict[str, Any]:
    factor, digits = formatting.display_format(score)
    return {
        "name": score.name,
        "title": score.title,
        "brief": formatting.short_title(score),
        "unit": score.unit,
        "higher": score.higher_is_better,
        "pair": pair,
        "truth": formatting.uses_ground_truth(score),
        "factor": factor,
        "digits": digits,
    }


def list_groups(row: SampleResult) -> list[str]:
    """The groups that a row counts to, that of all left out."""
    return [name for name in group_samples([row]) if name != ALL_GROUP]


def _row_data(row: SampleResult, number: int, album: _Album) -> dict[str, Any]:
    return {
        "id": row.prompt.id,
        "seed": row.seed,
        "prompt": row.prompt.prompt,
        "lang": "en" if row.prompt.language == "en" else "zh",  # Chinese has its own forms of characters
        "lines": row.prompt.lines,
        "groups": list_groups(row),
        "size": album.sizes.get(number),
        "truth": album.truths.get(number),
        "reference": _picture_data(row.reference, row, album.references.get(number), album),
        "truthLink": album.link(row.ground_truth),
    }


def _case_data(row: SampleResult, case: GalleryItem, album: _Album) -> dict[str, Any]:
    seen = row.variants[case.variant]
    return {
        "row": case.index,
        "variant": case.variant,
        "identical": seen.identical,
        "failure": seen.failure,
        "values": seen.values,
        "picture": _picture_data(seen.image, row, album.variants.get(case), album),
        "heat": album.heats.get(case),
    }


def _picture_data(
    picture: ImageResult | None, row: SampleResult, image: int | None, album: _Album
) -> dict[str, Any] | None:
    if picture is None:
        return None
    read = picture.notes.get("read")
    return {
        "image": image,
        "link": album.link(picture.file),
        "values": picture.values,
        "defect": picture.defect,
        "read": None if read is None else text_diff.diff_text(row.prompt.lines, read),
    }
