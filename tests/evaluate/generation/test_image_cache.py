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
from edgepress.storage.snapshot import FolderSnapshot

SAMPLING = SamplingParams(height=64, width=64, steps=2, guidance=0.0)
SEEDS = 2


@pytest.fixture(scope="module")
def job(reference: Path) -> GenerationJob:
    return GenerationJob(ImageSource("diffusers", reference), hash_folder(reference).sha256, "float32", SAMPLING)


@pytest.fixture(scope="module")
def batches(prompts: tuple[Prompt, ...]) -> list[PromptBatch]:
    return make_batches(prompts, SEEDS, SAMPLING.batch_size)


@pytest.fixture(scope="module")
def cache(job: GenerationJob, prompts: tuple[Prompt, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of a complete run; tests must not change it."""
    folder = tmp_path_factory.mktemp("cache")
    generate_cached_images(job, prompts, SEEDS, folder)
    return folder


@pytest.fixture(scope="module")
def complete(cache: Path) -> dict[str, bytes]:
    return read_files(cache)


def read_files(cache: Path) -> dict[str, bytes]:
    return {str(file.relative_to(cache)): file.read_bytes() for file in cache.rglob("*.png")}


def test_batches_contain_every_prompt_with_every_seed() -> None:
    prompts = [Prompt(id=str(number), prompt="x", language="en") for number in range(5)]
    batches = make_batches(prompts, 2, SamplingParams(height=256, width=256, steps=1, guidance=0).batch_size)
    assert [(batch.seed, len(batch.prompts)) for batch in batches] == [(0, 2), (0, 2), (0, 1), (1, 2), (1, 2), (1, 1)]


def test_images_are_those_of_the_pipeline(job: GenerationJob, batches: list[PromptBatch], cache: Path) -> None:
    import torch

    pipeline = load_pipeline(job.source.folder, torch.float32)
    for batch in batches:
        images = generate_images(pipeline, batch.prompts, SAMPLING, batch.seed)
        for image, file in zip(images, get_batch_files(job, batch, cache), strict=True):
            assert np.array_equal(np.asarray(image), load_image(file))


def test_files_are_returned_by_prompt_and_seed(
    job: GenerationJob, batches: list[PromptBatch], prompts: tuple[Prompt, ...], cache: Path
) -> None:
    files = generate_cached_images(job, prompts, SEEDS, cache).files
    assert list(files) == [(prompt.id, seed) for seed in range(SEEDS) for prompt in prompts]
    assert [files[prompt.id, 1] for prompt in prompts] == get_batch_files(job, batches[1], cache)


def test_images_differ_between_prompts_and_seeds(complete: dict[str, bytes]) -> None:
    assert len(complete) == len(set(complete.values())) == 6


def test_second_run_generates_nothing(job: GenerationJob, prompts: tuple[Prompt, ...], cache: Path) -> None:
    times = [file.stat().st_mtime_ns for file in sorted(cache.rglob("*.png"))]
    states: list[tuple[str, int, int]] = []
    generate_cached_images(job, prompts, SEEDS, cache, lambda *state: states.append(state), "generating")
    assert states == [("generating", 6, 6)]
    assert [file.stat().st_mtime_ns for file in sorted(cache.rglob("*.png"))] == times


def test_interrupted_run_resumes(
    job: GenerationJob, prompts: tuple[Prompt, ...], complete: dict[str, bytes], tmp_path: Path
) -> None:
    def interrupt(_stage: str, done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_cached_images(job, prompts, SEEDS, tmp_path, interrupt)
    assert len(read_files(tmp_path)) == 3
    states: list[tuple[str, int, int]] = []
    generate_cached_images(job, prompts, SEEDS, tmp_path, lambda *state: states.append(state), "generating")
    assert states == [("generating", 3, 6), ("generating", 6, 6)]
    assert read_files(tmp_path) == complete


def test_incomplete_batch_is_generated_again(
    job: GenerationJob,
    prompts: tuple[Prompt, ...],
    batches: list[PromptBatch],
    cache: Path,
    complete: dict[str, bytes],
    tmp_path: Path,
) -> None:
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    intact, incomplete = (get_batch_files(job, batch, tmp_path) for batch in batches)
    times = [file.stat().st_mtime_ns for file in intact]
    incomplete[1].unlink()
    incomplete[0].write_bytes(b"")
    generate_cached_images(job, prompts, SEEDS, tmp_path)
    assert read_files(tmp_path) == complete
    assert [file.stat().st_mtime_ns for file in intact] == times


def test_overwrite_generates_all_images_again(
    job: GenerationJob, prompts: tuple[Prompt, ...], cache: Path, complete: dict[str, bytes], tmp_path: Path
) -> None:
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"")
    generate_cached_images(job, prompts, SEEDS, tmp_path, overwrite=True)
    assert read_files(tmp_path) == complete


def test_file_name_depends_on_everything_that_changes_the_image(
    job: GenerationJob, batches: list[PromptBatch], tmp_path: Path
) -> None:
    batch = batches[0]
    changed_prompt = batch.prompts[0].model_copy(update={"prompt": "another wall"})
    variants = [
        (job, batch),
        (replace(job, sha256="0" * 64), batch),
        (replace(job, dtype="bfloat16"), batch),
        (replace(job, sampling=replace(SAMPLING, steps=3)), batch),
        (replace(job, repeat=1), batch),
        (replace(job, source=ImageSource("onnx", job.source.folder)), batch),
        (job, replace(batch, seed=7)),
        (job, replace(batch, prompts=(changed_prompt, *batch.prompts[1:]))),
        (job, replace(batch, prompts=batch.prompts[:2])),
    ]
    assert len({get_batch_files(job, batch, tmp_path)[0] for job, batch in variants}) == len(variants)


def test_file_name_does_not_depend_on_the_folder_of_the_pipeline(
    job: GenerationJob, batches: list[PromptBatch], tmp_path: Path
) -> None:
    moved = replace(job, source=ImageSource("diffusers", Path("elsewhere")))
    assert get_batch_files(moved, batches[0], tmp_path) == get_batch_files(job, batches[0], tmp_path)


def test_error_names_a_pipeline_that_cannot_be_loaded(
    reference: Path, prompts: tuple[Prompt, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "incomplete"
    shutil.copytree(reference, folder)
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    job = GenerationJob(ImageSource("diffusers", folder), "", "float32", SAMPLING)
    with pytest.raises(UserError, match=r"Cannot load the pipeline .*incomplete"):
        generate_cached_images(job, prompts, 1, tmp_path)


def test_images_of_a_source_that_was_changed_meanwhile_are_not_cached(
    job: GenerationJob, prompts: tuple[Prompt, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(job.source.folder, folder)
    snapshot = FolderSnapshot.take(folder)
    (folder / "scheduler" / "scheduler_config.json").touch()
    changed = replace(job, source=ImageSource("diffusers", folder), snapshot=snapshot)
    with pytest.raises(UserError, match=r"scheduler_config\.json was changed while this command was reading"):
        generate_cached_images(changed, prompts[:1], 1, tmp_path / "cache")
    assert read_files(tmp_path / "cache") == {}
