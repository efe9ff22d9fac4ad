"""The order of the gallery, and what is embedded of it; of hand-made samples, whose worst ones are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.result_rows import (
    FLIP,
    PSNR,
    TEXT,
    VARIANT,
    make_failed_pair,
    make_identity,
    make_pair,
    make_prompt,
    make_results,
    make_sample,
    make_sample_with,
)
from PIL import Image

from edgepress.evaluate.report.gallery import build_gallery, compute_loss, embed_images, list_groups, rank_items
from edgepress.evaluate.report.heatmap import DIFFERENCE
from edgepress.evaluate.report.thumbnails import Thumbnails
from edgepress.evaluate.results.schema import SampleResult


def make_samples() -> list[SampleResult]:
    """One with the worst PSNR, one with the worst text, a failed one, a defective one, and two good ones."""
    return [
        make_sample(make_prompt("good"), 40.0, flip=0.01),
        make_sample(make_prompt("noisy"), 20.0, flip=0.02),
        make_sample(make_prompt("misread"), 39.0, (1.0, 0.2), flip=0.03),
        make_sample_with(make_prompt("missing"), make_failed_pair()),
        make_sample_with(make_prompt("black"), make_pair(41.0, flip=0.005, defect="black")),
        make_sample(make_prompt("best"), None),
    ]


def test_failures_and_defects_come_first_then_the_worst_of_any_score() -> None:
    samples = make_samples()
    order = [samples[item.index].prompt.id for item in rank_items(make_results(samples))]
    assert set(order[:2]) == {"missing", "black"}
    assert set(order[2:4]) == {"noisy", "misread"}  # each the worst of some score
    assert len(order) == len(set(order)) == len(samples)


@pytest.mark.parametrize(
    ("sample", "losses"),
    [
        (make_sample(make_prompt("a"), 30.0, (1.0, 0.25), flip=0.1), (-30.0, 0.1, 0.75)),
        (make_sample(make_prompt("a"), None, (0.5, 1.0)), (None, 0.0, -0.5)),
        (make_sample(make_prompt("a"), 30.0, (None, None)), (-30.0, 0.0, None)),
        (make_sample_with(make_prompt("a"), make_failed_pair()), (None, None, None)),
    ],
)
def test_a_loss_is_higher_the_worse_an_image_is(sample: SampleResult, losses: tuple[float | None, ...]) -> None:
    assert tuple(compute_loss(sample, VARIANT, score) for score in (PSNR, FLIP, TEXT)) == losses


def test_groups_are_those_of_the_prompts_without_the_group_of_all() -> None:
    samples = [make_sample(make_prompt(name, size=name), 30.0) for name in ("small", "large")]
    groups = list_groups(samples)
    assert len(groups) == len(set(groups)) == 3  # the language, and two sizes
    assert all(any(size in group for group in groups) for size in ("small", "large"))


def save_image(file: Path, value: int) -> None:
    file.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((16, 24, 3), value, np.uint8)).save(file)


def test_images_are_embedded_or_linked_or_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    save_image(tmp_path / "images" / "x" / "0.png", 100)
    samples = make_samples()[:4]
    results = make_results(samples, identity=make_identity(image_folder=str(tmp_path / "images")))
    album = embed_images(results, DIFFERENCE, Thumbnails(10**6))
    gallery = build_gallery(album, tmp_path / "page")
    assert (gallery.num_images, gallery.num_embedded) == (3, 3)
    assert all(url.startswith("data:image/") for url in album.thumbnails.data_urls)
    assert [sample["id"] for sample in gallery.data["samples"]] == ["good", "noisy", "misread", "missing"]
    assert gallery.data["samples"][0]["size"] == (24, 16)
    missing = gallery.data["items"][3]
    assert (missing["failure"], missing["image"], missing["heatmap"]) == ("missing", None, None)
    assert gallery.data["items"][0]["image"]["link"] == "../images/x/0.png"


def test_without_a_budget_nothing_is_embedded_and_all_scores_are_there(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    save_image(tmp_path / "images" / "x" / "0.png", 100)
    results = make_results(make_samples(), identity=make_identity(image_folder=str(tmp_path / "images")))
    album = embed_images(results, DIFFERENCE, Thumbnails(0))
    gallery = build_gallery(album, tmp_path)
    assert (gallery.num_embedded, album.thumbnails.data_urls) == (0, [])
    assert [item["values"].get("psnr") for item in gallery.data["items"]] == [40.0, 20.0, 39.0, None, 41.0, None]
