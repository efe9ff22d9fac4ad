"""Samples of hand-made images: what is compared and scored, and why something is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.evaluate.images.defects import Defect
from edgepress.evaluate.images.image_file import ImageRecord
from edgepress.evaluate.metrics.base import MetricResult
from edgepress.evaluate.results.schema import TRUNCATED, SampleResult
from edgepress.evaluate.scoring.pairs import ComparisonSet, LoadedImage, build_sample, make_image_set, make_tasks
from edgepress.evaluate.scoring.runner import ScoreTask
from edgepress.prompts.prompt import Prompt

A, B = (Prompt(id=name, prompt=name, language="en") for name in "ab")
ROOT = Path("/run")


def make_record(
    digest: str, folder: str = "x", side: int = 16, defect: Defect | None = None, notice: str = ""
) -> ImageRecord:
    return ImageRecord(ROOT / folder / f"{digest}.png", digest, side, side, defect, notice)


REFERENCE = make_record("reference", "reference")


def compare(
    reference: LoadedImage, variant: LoadedImage, ground_truth: ImageRecord | None = None
) -> tuple[list[ScoreTask], SampleResult]:
    """The tasks of prompt A, and its sample if every task has one score: the digests that it is of."""
    images = ComparisonSet(
        make_image_set({("a", 0): reference}),
        {"int4": make_image_set({("a", 0): variant})},
        noise_floor=None,
        ground_truth={"a": ground_truth} if ground_truth else {},
    )
    tasks = list(make_tasks(A, 0, images))
    results = {}
    for task in tasks:
        name = "-".join(image.digest for image in task.images)
        notes = {"read": (name,)} if len(task.images) == 1 else {}
        results[task.key] = {"metric": MetricResult({name: float(len(task.images))}, notes)}
    return tasks, build_sample(A, 0, images, results, ROOT)


def test_both_images_and_their_pair_are_scored() -> None:
    tasks, sample = compare(REFERENCE, make_record("variant"))
    assert [[image.digest for image in task.images] for task in tasks] == [
        ["reference"],
        ["variant"],
        ["reference", "variant"],
    ]
    pair = sample.variants["int4"]
    assert (pair.identical, pair.failure, pair.values) == (False, None, {"reference-variant": 2.0})
    assert sample.reference
    assert sample.reference.values == {"reference": 1.0}
    assert pair.image
    assert (pair.image.file, pair.image.values, pair.image.notes) == (
        "x/variant.png",
        {"variant": 1.0},
        {"read": ("variant",)},
    )


def test_images_of_equal_pixels_are_identical() -> None:
    _, sample = compare(REFERENCE, make_record("reference", "elsewhere"))
    assert sample.variants["int4"].identical


def test_ground_truth_is_compared_with_every_image() -> None:
    tasks, sample = compare(REFERENCE, make_record("variant"), make_record("truth", "/elsewhere"))
    assert [task.images[1].digest for task in tasks if task.against_ground_truth] == ["reference", "variant"]
    image = sample.variants["int4"].image
    assert image
    assert image.values == {"truth_truth-variant": 2.0, "variant": 1.0}
    assert sample.ground_truth == "../elsewhere/truth.png"  # not below the root


@pytest.mark.parametrize(
    ("reference", "variant", "failure"),
    [
        (REFERENCE, "missing", "missing"),
        (REFERENCE, make_record("variant", side=8), "size 8x8 instead of 16x16"),
        (make_record("reference", defect="black"), make_record("variant"), "reference black"),
        (make_record("reference", defect="black"), make_record("reference", defect="black"), "reference black"),
        ("unreadable (animation)", make_record("variant"), "reference unreadable (animation)"),
    ],
)
def test_images_that_cannot_be_compared_have_a_reason_and_no_score(
    reference: LoadedImage, variant: LoadedImage, failure: str
) -> None:
    """The defect of a reference would otherwise be the standard for a variant with the same one."""
    tasks, sample = compare(reference, variant)
    pair = sample.variants["int4"]
    assert (pair.failure, pair.values, pair.identical) == (failure, {}, False)
    assert (pair.image is None) == isinstance(variant, str)
    assert pair.image is None or pair.image.values == {}
    assert [task.images for task in tasks] == ([(reference,)] if isinstance(reference, ImageRecord) else [])
    assert (sample.reference is None) == isinstance(reference, str)


def test_a_defective_variant_is_scored_all_the_same() -> None:
    tasks, sample = compare(REFERENCE, make_record("variant", defect="flat"))
    pair = sample.variants["int4"]
    assert len(tasks) == 3
    assert pair.failure is None
    assert pair.image
    assert pair.image.defect == "flat"


def test_a_truncated_prompt_is_a_note_of_the_image() -> None:
    image = compare(REFERENCE, make_record("variant", notice="Too long."))[1].variants["int4"].image
    assert image
    assert image.notes == {"read": ("variant",), TRUNCATED: ("Too long.",)}


def test_one_image_for_two_prompts_is_a_duplicate_but_not_for_two_seeds() -> None:
    same, single = make_record("same"), make_record("single")
    seeds = make_image_set({("a", 0): same, ("a", 1): same, ("b", 0): single})
    prompts = make_image_set({("a", 0): same, ("b", 0): same, ("b", 1): "missing"})
    assert (seeds.duplicates, prompts.duplicates) == (frozenset(), {"same"})


def test_the_noise_floor_is_compared_like_a_variant() -> None:
    floor = make_image_set({("a", 0): make_record("again")})
    images = ComparisonSet(make_image_set({("a", 0): REFERENCE}), {}, floor, {})
    tasks = list(make_tasks(A, 0, images))
    assert [len(task.images) for task in tasks] == [1, 1, 2]
    results = {task.key: {"psnr": MetricResult({"psnr": 50.0} if len(task.images) == 2 else {}, {})} for task in tasks}
    sample = build_sample(A, 0, images, results, ROOT)
    assert (sample.variants, sample.noise_floor and sample.noise_floor.values) == ({}, {"psnr": 50.0})
