from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgepress.common.errors import UserError
from edgepress.evaluate.generation.candidates import ImageSource
from edgepress.evaluate.generation.generators import PromptBatch
from edgepress.evaluate.generation.image_cache import (
    GenerationJob,
    generate_cached_images,
    get_batch_files,
    make_batches,
)
from edgepress.evaluate.images.image_file import load_image
from edgepress.evaluate.results.folder_identity import hash_folder
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt

SAMPLING = SamplingParams(height=64, width=64, steps=2, guidance=0.0)
SEEDS = 2


@pytest.fixture(scope="module")
def source(reference: Path) -> GenerationJob:
    return GenerationJob(ImageSource("diffusers", reference), hash_folder(reference).sha256, "float32", SAMPLING)


@pytest.fixture(scope="module")
def work(prompts: tuple[Prompt, ...]) -> list[PromptBatch]:
    return make_batches(prompts, SEEDS, SAMPLING.batch_size)


@pytest.fixture(scope="module")
def cache(source: GenerationJob, prompts: tuple[Prompt, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of a run that nothing disturbed; tests must not change them."""
    folder = tmp_path_factory.mktemp("cache")
    generate_cached_images(source, prompts, SEEDS, folder)
    return folder


@pytest.fixture(scope="module")
def whole(cache: Path) -> dict[str, bytes]:
    return contents(cache)


def contents(cache: Path) -> dict[str, bytes]:
    return {str(file.relative_to(cache)): file.read_bytes() for file in cache.rglob("*") if file.is_file()}


def test_batches_hold_every_prompt_with_every_seed() -> None:
    prompts = [Prompt(id=str(number), prompt="x", language="en") for number in range(5)]
    work = make_batches(prompts, 2, SamplingParams(height=256, width=256, steps=1, guidance=0).batch_size)
    assert [(batch.seed, len(batch.prompts)) for batch in work] == [(0, 2), (0, 2), (0, 1), (1, 2), (1, 2), (1, 1)]


def test_the_pictures_are_those_of_the_pipeline(source: GenerationJob, work: list[PromptBatch], cache: Path) -> None:
    import torch

    pipeline = load_pipeline(source.source.folder, torch.float32)
    for batch in work:
        images = generate_images(pipeline, batch.prompts, SAMPLING, batch.seed)
        for image, file in zip(images, get_batch_files(source, batch, cache), strict=True):
            assert np.array_equal(np.asarray(image), load_image(file))


def test_the_files_are_found_by_prompt_and_seed(
    source: GenerationJob, work: list[PromptBatch], prompts: tuple[Prompt, ...], cache: Path
) -> None:
    found = generate_cached_images(source, prompts, SEEDS, cache)
    assert list(found) == [(prompt.id, seed) for seed in range(SEEDS) for prompt in prompts]
    assert [found[prompt.id, 1] for prompt in prompts] == get_batch_files(source, work[1], cache)


def test_prompts_and_seeds_give_different_pictures(whole: dict[str, bytes]) -> None:
    assert len(whole) == len(set(whole.values())) == 6


def test_a_second_run_makes_nothing(source: GenerationJob, prompts: tuple[Prompt, ...], cache: Path) -> None:
    times = [file.stat().st_mtime_ns for file in sorted(cache.rglob("*.png"))]
    seen: list[tuple[str, int, int]] = []
    generate_cached_images(source, prompts, SEEDS, cache, lambda *state: seen.append(state), "painting")
    assert seen == [("painting", 6, 6)]
    assert [file.stat().st_mtime_ns for file in sorted(cache.rglob("*.png"))] == times


def test_a_killed_run_goes_on(
    source: GenerationJob, prompts: tuple[Prompt, ...], whole: dict[str, bytes], tmp_path: Path
) -> None:
    def die(_stage: str, done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_cached_images(source, prompts, SEEDS, tmp_path, die)
    assert len(contents(tmp_path)) == 3
    seen: list[tuple[str, int, int]] = []
    generate_cached_images(source, prompts, SEEDS, tmp_path, lambda *state: seen.append(state), "painting")
    assert seen == [("painting", 3, 6), ("painting", 6, 6)]
    assert contents(tmp_path) == whole


def test_a_batch_that_lacks_a_picture_is_made_whole_again(
    source: GenerationJob,
    prompts: tuple[Prompt, ...],
    work: list[PromptBatch],
    cache: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
) -> None:
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    kept, lost = get_batch_files(source, work[0], tmp_path), get_batch_files(source, work[1], tmp_path)
    times = [file.stat().st_mtime_ns for file in kept]
    lost[1].unlink()
    lost[0].write_bytes(b"")
    generate_cached_images(source, prompts, SEEDS, tmp_path)
    assert contents(tmp_path) == whole
    assert [file.stat().st_mtime_ns for file in kept] == times


def test_anew_makes_all_pictures_again(
    source: GenerationJob, prompts: tuple[Prompt, ...], cache: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"")
    generate_cached_images(source, prompts, SEEDS, tmp_path, overwrite=True)
    assert contents(tmp_path) == whole


def test_everything_that_a_picture_depends_on_is_in_its_name(
    source: GenerationJob, work: list[PromptBatch], tmp_path: Path
) -> None:
    batch = work[0]
    other = batch.prompts[0].model_copy(update={"prompt": "another wall"})
    variants = [
        (source, batch),
        (replace(source, sha256="0" * 64), batch),
        (replace(source, dtype="bfloat16"), batch),
        (replace(source, sampling=replace(SAMPLING, steps=3)), batch),
        (replace(source, run=1), batch),
        (replace(source, side=ImageSource("onnx", source.source.folder)), batch),
        (source, replace(batch, seed=7)),
        (source, replace(batch, prompts=(other, *batch.prompts[1:]))),
        (source, replace(batch, prompts=batch.prompts[:2])),
    ]
    assert len({get_batch_files(source, batch, tmp_path)[0] for source, batch in variants}) == len(variants)


def test_the_place_of_a_pipeline_is_not_in_the_name(
    source: GenerationJob, work: list[PromptBatch], tmp_path: Path
) -> None:
    moved = replace(source, side=ImageSource("diffusers", Path("elsewhere")))
    assert get_batch_files(moved, work[0], tmp_path) == get_batch_files(source, work[0], tmp_path)


def test_a_pipeline_that_cannot_be_loaded_is_named(
    reference: Path, prompts: tuple[Prompt, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "halved"
    shutil.copytree(reference, folder)
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="halved cannot be loaded: "):
        generate_cached_images(
            GenerationJob(ImageSource("diffusers", folder), "", "float32", SAMPLING), prompts, 1, tmp_path
        )
