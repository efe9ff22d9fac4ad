"""Where results of benchmarks are written: no run replaces better results of another plan, or complete ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.bench_results import PI, VERSION_1, make_results

from edgepress.perf.publishing import name_plan, publish_results
from edgepress.perf.schema import BenchResults, summarize_timings
from edgepress.storage.checksums import read_checksums
from edgepress.storage.files import hash_file

FILES = ("bench.json", "bench.md")


def read_files(folder: Path) -> dict[str, bytes]:
    """What all files hold, but for the lists of their hashes."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def make_smaller(results: BenchResults) -> BenchResults:
    settings = results.settings.model_copy(update={"num_images": 1})
    images = results.images[:2]
    summary = summarize_timings(results.summary.process_start, images, keep_loaded=True)
    return results.model_copy(update={"settings": settings, "images": images, "summary": summary})


def test_a_run_of_another_plan_leaves_earlier_results(tmp_path: Path) -> None:
    good = make_results(100)
    small = make_smaller(good)
    publish_results(good, tmp_path)
    assert publish_results(small, tmp_path) == tmp_path
    for name, results in {".": small, name_plan(small): small, name_plan(good): good}.items():
        assert BenchResults.model_validate_json((tmp_path / name / "bench.json").read_text("utf-8")) == results
        assert (tmp_path / name / "bench.md").is_file()


def test_hashes_of_all_files_are_recorded(tmp_path: Path) -> None:
    results = make_results(100)
    publish_results(results, tmp_path)
    for folder in (tmp_path, tmp_path / name_plan(results)):
        assert read_checksums(folder) == {name: hash_file(folder / name) for name in FILES}


def test_a_run_that_ended_early_replaces_no_complete_results(tmp_path: Path) -> None:
    publish_results(make_results(100), tmp_path)
    before = read_files(tmp_path)
    folder = publish_results(make_results(7, incomplete_reason="interrupted"), tmp_path)
    assert folder.parent == tmp_path
    assert len(json.loads((folder / "bench.json").read_text("utf-8"))["images"]) == 8
    assert {name: content for name, content in read_files(tmp_path).items() if folder.name not in name} == before
    publish_results(make_results(100), tmp_path)
    assert read_files(tmp_path).keys() == before.keys()


@pytest.mark.parametrize("reason", [None, "interrupted"])
def test_results_of_earlier_versions_are_moved_to_a_folder_of_their_plan(tmp_path: Path, reason: str | None) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(VERSION_1 | {"partial": reason}))
    (tmp_path / "bench.md").write_text("earlier")
    earlier = read_files(tmp_path)
    publish_results(make_results(100), tmp_path)
    (folder,) = tmp_path.glob("100-images-of-smoke-80x64-2-steps-*")
    assert folder.name.endswith("-incomplete") == (reason is not None)
    assert read_files(folder) == earlier


@pytest.mark.parametrize("name", ["bench.json", "bench.md"])
def test_a_file_that_cannot_be_read_is_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{")
    publish_results(make_results(100), tmp_path)
    (file,) = tmp_path.glob(f"earlier-*/{name}")
    assert file.read_text() == "{"


def test_plans_differ_in_all_that_numbers_depend_on() -> None:
    results = make_results(100)
    settings = {"size": (64, 64), "steps": 1, "tile_size": 64, "seed": 1, "keep_loaded": False, "prompts_sha256": "1"}
    variants = [
        *(
            results.model_copy(update={"settings": results.settings.model_copy(update={name: value})})
            for name, value in settings.items()
        ),
        results.model_copy(update={"artifact_sha256": "1"}),
        results.model_copy(update={"engine": "ONNX Runtime, CUDA"}),
        results.model_copy(update={"machine": PI.model_copy(update={"model": "Raspberry Pi 4"})}),
    ]
    assert len({name_plan(plan) for plan in [results, *variants]}) == len(variants) + 1
    assert name_plan(results) == name_plan(results.model_copy(update={"started_at": "2027-01-01T00:00:00+00:00"}))


@pytest.mark.parametrize(
    ("prompt_set", "name"), [("--prompt", "prompt"), ("my sets/a b.jsonl", "a-b"), ("写.txt", "写"), ("..", "prompts")]
)
def test_names_of_prompt_sets_become_names_of_folders(prompt_set: str, name: str) -> None:
    results = make_results(100)
    settings = results.settings.model_copy(update={"prompt_set": prompt_set})
    plan = name_plan(results.model_copy(update={"settings": settings}))
    assert plan.startswith(f"100-images-of-{name}-256x128-2-steps-")
