"""Whether graphs are loaded at once or one at a time: the artifact's plan against the memory that is free."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.small_artifact import write_small_artifact
from helpers.system_files import write_tree

from edgepress.common import system_memory
from edgepress.common.errors import UserError
from edgepress.runtime.memory_need import (
    MemoryNeed,
    check_image_memory,
    choose_keep_loaded,
    read_memory_need,
    require_memory,
)
from edgepress.runtime.pipeline import ImagePipeline

GIB = 2**30


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artifact whose plan needs 3 GiB, or 2 with one graph at a time."""
    plan = {"memory_plan": {"resident_bytes": 3 * GIB, "phased_bytes": 2 * GIB}}
    return write_tree(tmp_path, {"artifact.json": json.dumps(plan), "onnx/caption.onnx": "x"})


def set_free_memory(folder: Path, monkeypatch: pytest.MonkeyPatch, gibibytes: float) -> None:
    kibibytes = int(gibibytes * 2**20)
    write_tree(folder, {"meminfo": f"MemTotal: {2**24} kB\nMemAvailable: {kibibytes} kB\n"})
    monkeypatch.setattr(system_memory, "MEMINFO", folder / "meminfo")


@pytest.mark.parametrize(("free", "fits"), [(3.5, True), (2.5, False)])
def test_the_plan_decides(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, free: float, fits: bool
) -> None:
    set_free_memory(artifact, monkeypatch, free)
    assert choose_keep_loaded(artifact / "onnx") is fits
    sentence = "loaded one at a time, which takes longer: all take 3.0 GiB by the artifact's memory plan, and 2.5 GiB"
    assert (sentence in caplog.text) is not fits
    require_memory(artifact / "onnx", keep_loaded=fits)


def test_what_does_not_fit_is_refused(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_free_memory(artifact, monkeypatch, 2.5)
    with pytest.raises(UserError, match=r"take 3\.0 GiB of memory, but only 2\.5 GiB are free\. Close other p"):
        require_memory(artifact / "onnx", keep_loaded=True)
    set_free_memory(artifact, monkeypatch, 1.5)
    with pytest.raises(UserError, match=r"take 2\.0 GiB of memory, but only 1\.5 GiB are free\. Close other p"):
        require_memory(artifact / "onnx", keep_loaded=False)


def test_an_image_to_start_from_is_encoded_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first features of 64 x 64 pixels take 128 KiB in 16 bits; what tiles take fits into 64 KiB."""
    configs = {"vae": {"block_out_channels": [8, 8, 8, 8], "latent_channels": 4}}
    write_tree(tmp_path, {"meminfo": "MemTotal: 64 kB\n"})
    monkeypatch.setattr(system_memory, "MEMINFO", tmp_path / "meminfo")
    check_image_memory(tmp_path, configs, (64, 64), decodes_whole=False, encodes=False)
    for decodes_whole, encodes, advice in ((True, False, ", or decode in tiles"), (False, True, ""), (True, True, "")):
        with pytest.raises(UserError, match=rf"^An image of 64x64 takes .* Choose a smaller size{advice}\."):
            check_image_memory(tmp_path, configs, (64, 64), decodes_whole, encodes)


def test_without_a_plan_the_files_of_each_component_count(tmp_path: Path) -> None:
    sizes = {"transformer.onnx": 10, "transformer-00001-of-00002.safetensors": 500, "vae.safetensors": 200, "x.json": 9}
    write_tree(tmp_path, {f"onnx/{name}": "x" * size for name, size in sizes.items()})
    assert read_memory_need(tmp_path / "onnx") == MemoryNeed(710, 510, is_planned=False)


def test_the_plan_of_onnx_graphs_says_nothing_of_parts_for_an_npu(artifact: Path) -> None:
    write_tree(artifact, {"rknn/transformer.rknn": "x" * 700, "rknn/pipeline.json": json.dumps({"target": "rk3588"})})
    assert read_memory_need(artifact / "rknn") == MemoryNeed(700, 700, is_planned=False)
    assert read_memory_need(artifact / "onnx").is_planned


def test_a_pipeline_loads_graphs_as_the_plan_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnx").mkdir()
    write_small_artifact(tmp_path)
    assert ImagePipeline(tmp_path).keep_loaded
    plan = {"memory_plan": {"resident_bytes": 3 * GIB, "phased_bytes": 2 * GIB}}
    write_tree(tmp_path, {"artifact.json": json.dumps(plan)})
    set_free_memory(tmp_path, monkeypatch, 2.5)
    pipeline = ImagePipeline(tmp_path)
    assert not pipeline.keep_loaded
    pipeline("a wall", steps=1)
    assert pipeline._run.loaded_graphs() == ("vae_decoder",)  # type: ignore[union-attr]
    assert ImagePipeline(tmp_path, keep_loaded=True).keep_loaded
