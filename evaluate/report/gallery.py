"""Builds the gallery of the HTML report: one item per sample and variant, with its scores, images and OCR result.

Images are embedded into the page, worst items first, until the budget is spent. An item without images still shows its
scores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...common.errors import UserError
from ..images.image_file import load_image
from ..images.types import ImageArray
from ..metrics.base import Score
from ..results.aggregate import group_samples
from ..results.schema import ALL_GROUP, READ, REMARKS, ImageResult, PairResult, Results, SampleResult
from .formatting import get_display_format, get_short_title, index_scores, uses_ground_truth
from .heatmap import Heatmap
from .text_diff import diff_text
from .thumbnails import LARGE_SIZE, SMALL_SIZE, Thumbnails

NUM_LARGE = 24  # items whose images are embedded in the large size


@dataclass(frozen=True)
class GalleryItem:
    """One variant of one sample.

    Attributes:
        index: index of the sample in the results.
        variant: name of the variant.
    """

    index: int
    variant: str


@dataclass(frozen=True)
class Gallery:
    """The gallery.

    Attributes:
        data: what the scripts of the page read, as JSON values, but for the embedded images.
        num_embedded: number of items whose image is embedded in the page.
        num_images: number of items that have an image.
    """

    data: dict[str, Any]
    num_embedded: int
    num_images: int


def embed_images(results: Results, heatmap: Heatmap, thumbnails: Thumbnails) -> ImageAlbum:
    """Embeds the images of all items, worst items first.

    Args:
        results: the results.
        heatmap: how differences are rendered.
        thumbnails: where images are embedded.
    """
    album = ImageAlbum(results, thumbnails, heatmap)
    for rank, item in enumerate(rank_items(results)):
        album.add(item, LARGE_SIZE if rank < NUM_LARGE else SMALL_SIZE)
    return album


def build_gallery(album: ImageAlbum, folder: Path) -> Gallery:
    """Builds the gallery.

    Args:
        album: the embedded images of the results.
        folder: the folder of the page, which links are relative to.
    """
    results = album.results
    data = {
        "variants": list(results.variants),
        "scores": [_export_score(score, score in results.pair_scores) for score in index_scores(results).values()],
        "groups": list_groups(results.samples),
        "samples": [_export_sample(sample, index, album, folder) for index, sample in enumerate(results.samples)],
        "items": [_export_item(item, sample, album, folder) for item, sample in _iter_items(results)],
    }
    num_images = sum(sample.variants[item.variant].image is not None for item, sample in _iter_items(results))
    return Gallery(data, len(album.variants), num_images)


def rank_items(results: Results) -> list[GalleryItem]:
    """Sorts items, worst first: failures and defects, then by the worst rank of an item over all scores."""
    ranks: dict[GalleryItem, int] = {}
    for score in index_scores(results).values():
        losses = {item: compute_loss(sample, item.variant, score) for item, sample in _iter_items(results)}
        known = {item: loss for item, loss in losses.items() if loss is not None}
        for rank, item in enumerate(sorted(known, key=lambda item: -known[item]), 1):
            ranks[item] = min(rank, ranks.get(item, rank))
    faulty = {item for item, sample in _iter_items(results) if _is_faulty(sample.variants[item.variant])}
    return sorted(
        (item for item, _ in _iter_items(results)),
        key=lambda item: (item not in faulty, ranks.get(item, len(results.samples) + 1), item.index),
    )


def compute_loss(sample: SampleResult, variant: str, score: Score) -> float | None:
    """Computes a number that is higher the worse a variant is: from a pair score, or the drop of an image score.

    Returns:
        None if the variant does not have the score.
    """
    sign = 1 if score.higher_is_better else -1
    pair = sample.variants[variant]
    if pair.failure is not None:
        return None
    if score.name in pair.values:
        value = pair.values[score.name]
        return None if value is None else -sign * value
    before, after = _get_value(sample.reference, score), _get_value(pair.image, score)
    return None if before is None or after is None else sign * (before - after)


def list_groups(samples: Sequence[SampleResult]) -> list[str]:
    """Lists the groups of the samples, without the group of all."""
    return [name for name in group_samples(samples) if name != ALL_GROUP]


def _iter_items(results: Results) -> Iterator[tuple[GalleryItem, SampleResult]]:
    """Yields all items in the order of the samples."""
    for index, sample in enumerate(results.samples):
        for name in sample.variants:
            yield GalleryItem(index, name), sample


def _is_faulty(pair: PairResult) -> bool:
    return pair.failure is not None or (pair.image is not None and pair.image.defect is not None)


def _get_value(image: ImageResult | None, score: Score) -> float | None:
    return image.values.get(score.name) if image else None


# ---------------------------------------------------------------- images


@dataclass
class ImageAlbum:
    """The images that are embedded in the page: their indices in `thumbnails.data_urls`, by sample or item.

    Attributes:
        results: the results.
        thumbnails: where images are embedded.
        heatmap: how differences are rendered.
        references: indices of the reference's images, by sample.
        ground_truths: indices of ground-truth images, by sample.
        variants: indices of the variants' images, by item.
        heatmaps: indices of the differences, by item.
        sizes: (width, height) in pixels, by sample.
    """

    results: Results
    thumbnails: Thumbnails
    heatmap: Heatmap
    references: dict[int, int] = field(default_factory=dict)
    ground_truths: dict[int, int] = field(default_factory=dict)
    variants: dict[GalleryItem, int] = field(default_factory=dict)
    heatmaps: dict[GalleryItem, int] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, item: GalleryItem, max_side: int) -> None:
        """Embeds the images of an item as far as they can be read and fit the budget.

        Args:
            item: the item.
            max_side: the longer side of the embedded images in pixels.
        """
        sample = self.results.samples[item.index]
        image = sample.variants[item.variant].image
        reference = self.load(sample.reference.file if sample.reference else None)
        variant = self.load(image.file if image else None)
        self.embed(reference, self.references, item.index, max_side)
        self.embed(self.load(sample.ground_truth), self.ground_truths, item.index, max_side)
        self.embed(variant, self.variants, item, max_side)
        is_comparable = self.results.identity.variants[item.variant].own_noise is None
        if is_comparable and reference is not None and variant is not None and reference.shape == variant.shape:
            self.embed(self.heatmap.render(reference, variant), self.heatmaps, item, max_side)
        shown = reference if reference is not None else variant
        if shown is not None:
            self.sizes[item.index] = (shown.shape[1], shown.shape[0])

    def embed(self, image: ImageArray | None, indices: dict[Any, int], key: int | GalleryItem, max_side: int) -> None:
        """Embeds an image unless it is missing, already embedded, or over budget, and stores its index."""
        if image is None or key in indices:
            return
        index = self.thumbnails.add(image, max_side)
        if index is not None:
            indices[key] = index

    def load(self, file: str | None) -> ImageArray | None:
        """Loads an image; None if it is missing or unreadable, which the page then says in its place."""
        if file is None:
            return None
        try:
            return load_image(self.get_path(file))
        except UserError:
            return None

    def get_path(self, file: str) -> Path:
        return Path(self.results.identity.image_folder) / file

    def get_link(self, file: str | None, folder: Path) -> str | None:
        """Returns the address of the original relative to the page's folder; None if it does not exist."""
        if file is None or not self.get_path(file).exists():
            return None
        return quote(os.path.relpath(self.get_path(file).absolute(), folder.absolute()))


# ---------------------------------------------------------------- data of the scripts


def _export_score(score: Score, is_pair_score: bool) -> dict[str, Any]:
    factor, digits = get_display_format(score)
    return {
        "name": score.name,
        "title": score.title,
        "shortTitle": get_short_title(score),
        "unit": score.unit,
        "higherIsBetter": score.higher_is_better,
        "isPairScore": is_pair_score,
        "usesGroundTruth": uses_ground_truth(score),
        "factor": factor,
        "digits": digits,
    }


def _export_sample(sample: SampleResult, index: int, album: ImageAlbum, folder: Path) -> dict[str, Any]:
    return {
        "id": sample.prompt.id,
        "seed": sample.seed,
        "prompt": sample.prompt.prompt,
        "lang": "en" if sample.prompt.language == "en" else "zh",  # selects the Chinese forms of shared characters
        "lines": sample.prompt.lines,
        "groups": list_groups([sample]),
        "size": album.sizes.get(index),
        "groundTruth": album.ground_truths.get(index),
        "groundTruthLink": album.get_link(sample.ground_truth, folder),
        "reference": _export_image(sample.reference, sample, album.references.get(index), album, folder),
    }


def _export_item(item: GalleryItem, sample: SampleResult, album: ImageAlbum, folder: Path) -> dict[str, Any]:
    pair = sample.variants[item.variant]
    return {
        "sample": item.index,
        "variant": item.variant,
        "identical": pair.identical,
        "failure": pair.failure,
        "values": pair.values,
        "image": _export_image(pair.image, sample, album.variants.get(item), album, folder),
        "heatmap": album.heatmaps.get(item),
    }


def _export_image(
    image: ImageResult | None, sample: SampleResult, index: int | None, album: ImageAlbum, folder: Path
) -> dict[str, Any] | None:
    if image is None:
        return None
    lines = image.notes.get(READ)
    return {
        "index": index,
        "link": album.get_link(image.file, folder),
        "values": image.values,
        "defect": image.defect,
        "textRemarks": image.notes.get(REMARKS, ()),
        "textDiff": None if lines is None else diff_text(sample.prompt.lines, lines),
    }
