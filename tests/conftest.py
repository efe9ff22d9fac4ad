"""Fixtures for several folders of tests."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.tiny import write_tiny_pipeline, write_tiny_prompts
from hypothesis import settings

from edgepress.prompts.prompt import Prompt

settings.register_profile("repeatable", derandomize=True)  # a failure is caused by a change, not by chance
settings.load_profile("repeatable")


PIPELINES = {"tiny", "lean", "demo", "exported", "reference", "candidate", "server"}  # fixtures


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that need a whole pipeline or a server as slow, and lets files with such tests run first.

    A worker takes a file at a time: at the end only short ones are left, so that all workers end together.
    """
    for item in items:
        if PIPELINES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Collects garbage less often. What was imported is never garbage, and walking it was a tenth of a run's time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of a run share, so that what takes long is made once and not by each."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session", autouse=True)
def _run_cache(run_folder: Path) -> Iterator[None]:
    """User folders for this run only. In its cache each graph is traced once, since tracing is slow."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(run_folder / "cache"))
        patched.setenv("XDG_STATE_HOME", str(run_folder / "state"))
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real pipeline folder with random weights and a few prompts. Tests must not change it."""
    folder = tmp_path_factory.mktemp("tiny") / "pipeline"
    write_tiny_pipeline(folder)
    write_tiny_prompts(folder)
    return folder


@pytest.fixture(scope="session")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline with one block of half the width in its transformer, for what depends on none of these.

    Tests must not change it.
    """
    folder = tmp_path_factory.mktemp("lean") / "pipeline"
    write_tiny_pipeline(folder, refiners=0, heads=3)
    write_tiny_prompts(folder)
    return folder


@pytest.fixture(scope="session")
def exported(run_folder: Path) -> Path:
    """An artifact with the demo's graphs in float32, without those that decode in tiles. Tests must not change it."""
    from filelock import FileLock
    from helpers.tiles import without_tile_graphs

    from edgepress.export.onnx.exporter import export_onnx
    from edgepress.pipelines.hub import DEMO_PIPELINE
    from edgepress.recipes.schema import ExportSettings

    folder = run_folder / "exported"
    with FileLock(f"{folder}.lock"):
        if not (folder / "onnx").exists():  # published by one rename
            with without_tile_graphs():
                export_onnx(DEMO_PIPELINE, folder, ExportSettings(precision="fp32"), verify=False)
    return folder


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline that candidates are compared with."""
    folder = tmp_path_factory.mktemp("pipelines") / "reference"
    write_tiny_pipeline(folder)
    return folder


@pytest.fixture(scope="session")
def candidate(reference: Path) -> Path:
    """The reference with one weight matrix of the transformer rounded to multiples of 1/64."""
    from safetensors.torch import load_file, save_file

    folder = reference.with_name("candidate") / "model"
    shutil.copytree(reference, folder)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("feed_forward.w2.weight"))
    tensors[name] = (tensors[name] * 64).round() / 64
    save_file(tensors, file, {"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def prompts() -> tuple[Prompt, ...]:
    return (
        Prompt(id="a", prompt='a red wall: "OPEN"', language="en", lines=("OPEN",), categories={"size": "large"}),
        Prompt(id="b", prompt="白墙红字：“花园”", language="zh", lines=("花园",), categories={"size": "small"}),
        Prompt(id="c", prompt="an empty grey wall", language="en"),
    )
