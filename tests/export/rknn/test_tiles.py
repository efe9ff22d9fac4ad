"""The decoder's tile graphs as they are exported: in ONNX Runtime and in the simulator, beside diffusers' decoder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_graphs import load
from helpers.previous_export import check_untouched
from helpers.toolkit import needs_toolkit
from numpy.typing import NDArray

from edgepress.common.errors import UserError
from edgepress.export.graph.source_model import open_source
from edgepress.export.rknn.exporter import export_rknn
from edgepress.export.rknn.part_graph import make_part_weights, write_part_onnx
from edgepress.export.rknn.planning.memory_plan import MemoryEstimator
from edgepress.export.rknn.prepare import prepare_job
from edgepress.models.base.npu import GraphPart, load_npu_host_class, load_npu_spec, with_tiled_decoder
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.recipes.schema import Recipe, RknnSettings
from edgepress.runtime.onnx.sessions import SessionPool
from edgepress.runtime.rknn.backend import open_backend
from edgepress.runtime.rknn.exported import load_exported_rknn
from edgepress.runtime.rknn.part_chain import PartRef
from edgepress.runtime.rknn.vae_tiling import chain_graphs

VAE = ("vae",)
SETTINGS = RknnSettings(target="rk3588", precision="fp16", max_prompt_tokens=32, size=(64, 128), tile=64)


def make_latents(height: int, width: int) -> NDArray[np.float32]:
    """Of a picture of some pixels, whose left is another than its right."""
    noise = np.random.default_rng(0).standard_normal((1, 16, height // 8, width // 8))
    return (noise + np.linspace(-2, 2, width // 8)).astype(np.float32)


def decode_whole(pipeline: Path, given: NDArray[np.float32]) -> NDArray[np.float32]:
    """What diffusers' own decoder makes of latents."""
    with torch.no_grad():
        sample: torch.Tensor = load(pipeline, "vae").decode(torch.from_numpy(given)).sample
    return sample.numpy()


def psnr(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Decibels, of pictures from -1 to 1."""
    return float(10 * np.log10(4 / np.square(found.astype(np.float64) - expected).mean()))


def test_float_graphs_decode_the_picture_that_is_decoded_whole(tiny: Path, tmp_path: Path) -> None:
    model, size = open_source(tiny), (64, 128)
    npu, given = load_npu_spec(model.family), make_latents(*size)
    host = load_npu_host_class(npu)(model.configs(), size, 32, np.zeros((4, 4), np.float32), 64)
    assert host.decoder_tiling is not None
    source = make_part_weights(model, npu, "vae")
    names = [graph.name for graph in host.decoder_tiling.graphs]
    files = {
        graph.name: write_part_onnx(GraphPart(graph.name, graph), model, source, host.axis_sizes, tmp_path)
        for graph in host.decoder_tiling.graphs
    }
    assert [graph.name for graph in with_tiled_decoder(npu, host).graphs if graph.component == "vae"] == names
    links = {
        graph.name: [PartRef(graph.name, tuple(port.name for port in graph.inputs))]
        for graph in host.decoder_tiling.graphs
    }
    found = chain_graphs(host, links, SessionPool(files))(host.decoder_graph, {"latents": given})
    assert psnr(found, decode_whole(tiny, given)) > 50


@needs_toolkit
@pytest.mark.slow
def test_tiles_are_wholly_on_the_npu_and_the_artifact_decodes_in_them(tiny: Path, tmp_path: Path) -> None:
    """With the demo's VAE, as random weights lose more by float16."""
    pipeline, artifact = tmp_path / "pipeline", tmp_path / "out"
    shutil.copytree(tiny, pipeline, ignore=shutil.ignore_patterns("vae"))
    shutil.copytree(DEMO_PIPELINE / "vae", pipeline / "vae")
    export_rknn(pipeline, artifact, SETTINGS, VAE)
    content = json.loads((artifact / "rknn" / "pipeline.json").read_text())
    assert content["tile"] == 64
    assert list(content["graphs"]) == ["vae_begin", "vae_measure_3", "vae_make_3"]
    for (part,) in content["graphs"].values():
        assert part["operators"]["elsewhere"] == part["faults"] == []
        assert part["simulated"]["relative"] <= 2e-3
    host, backend = open_backend(load_exported_rknn(artifact))
    given = make_latents(64, 128)
    assert psnr(backend(host.decoder_graph, {"latents": given}), decode_whole(pipeline, given)) > 45


@needs_toolkit
def test_a_decoder_cannot_be_the_cpus_and_in_tiles(tiny: Path, occupied: Path) -> None:
    with pytest.raises(UserError, match=r"rknn\.cpu names 'vae_decoder'; graphs are .*vae_begin, vae_measure_3"):
        prepare_job(tiny, occupied, SETTINGS.model_copy(update={"cpu": ("vae_decoder",)}), ())
    check_untouched(occupied)


def test_a_plan_counts_tiles_on_the_npu_and_the_whole_decoder_on_the_cpu(tiny: Path) -> None:
    def ways(tile: int | None) -> tuple[Any, Any]:
        scales = MemoryEstimator(open_source(tiny), Recipe(device="board"), RknnSettings(size=(256, 256), tile=tile))
        return scales.estimate_npu("fp16"), scales.estimate_cpu(keep_loaded=True)

    (whole, cpu), (tiles, same) = ways(None), ways(64)
    memory = {part.name: part.internal for part in (*whole.parts, *tiles.parts) if part.name.startswith("vae")}
    (decoder,) = (memory.pop(name) for name in ["vae_decoder"])
    assert list(memory) == [
        "vae_begin",
        "vae_measure_2",
        "vae_make_2",
        "vae_measure_3",
        "vae_make_3",
    ]
    assert max(memory.values()) < decoder / 4
    assert cpu == same
